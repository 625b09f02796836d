"""Reads DICOM series (CT, MR) with NRRD label maps or DICOM segmentations (SEG). Each slice is a file; positions define the order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from maskrcnn_ext.data.formats import Format, Option
from maskrcnn_ext.data.formats.dicom_labels import SUFFIXES, Labels, open_labels
from maskrcnn_ext.data.formats.dicom_series import read_series
from maskrcnn_ext.data.formats.reading_many import collected
from maskrcnn_ext.data.formats.records import DataSet, ImageRecord
from maskrcnn_ext.data.formats.volume import LabelTable, label_table, level_extra, warn_of_parts
from maskrcnn_ext.errors import InputError


def read_dicom(
    series: Path,
    labels: Path,
    *,
    classes: Sequence[str] | None = None,
    values: Mapping[int, str | None] | None = None,
    instances: str = "value",
    level: tuple[float, float] | None = None,
    series_uid: str | None = None,
    faults: list[str] | None = None,
) -> DataSet:
    """Reads series and their segmentations.

    Args:
        series: the folder of a series, or a folder of such folders, one per patient.
        labels: an NRRD label map, a DICOM SEG, or a folder of these for one series. For a folder of series: a folder with a file or
            folder of the same name for each.
        classes: class names. None for the segments' names in the order of the files, or for "object" if they have no names.
        values: the class name of every label value (segment number), None to ignore a value. By default, named segments have the class
            of that name. In other label maps, value 1 is the first class, 2 the second, and so on; but with a single class and
            ``instances="value"``, every value is an object of that class.
        instances: "value" if all pixels of a segment in a slice are one object; "component" if each connected component is one.
        level: (center, width) of the grey values to show, in the units of the files (Hounsfield in CT); None for the file's own.
        series_uid: the SeriesInstanceUID; required if a folder has several series.
        faults: gets the faults of series, which are left out; None to raise the first.

    Returns:
        One record per slice, including slices without objects, in the order of their positions. Its id is the SOPInstanceUID. ``extra``
        has ``level`` [center, width] if known. Overlapping segments stay complete.

    Raises:
        InputError: a file is unreadable or truncated, a folder has several series, labels do not match the pixels of the series, or a
            segment or value has no class.
    """
    pairs = []
    for folder, files in _pair_folders(series, labels):
        with collected(faults):
            pairs.append((read_series(folder, series_uid), [open_labels(file) for file in files]))
    everyone = [one for _, opened in pairs for one in opened]
    table = label_table(classes, values, instances, _default_names(everyone, labels))
    records = []
    for images, opened in pairs:
        of_series = [
            ImageRecord(str(one.file), one.uid, images.height, images.width, extra=level_extra(level or one.level))
            for one in images.slices
        ]
        with collected(faults):
            for one in opened:
                own = table if values is not None or not one.names else _by_name(table, one)
                for index, plane in one.planes(images):
                    where = f"{one.file}: slice {images.slices[index].file.name}"
                    of_series[index].annotations += own.annotations(plane, where)
            records += of_series
    warn_of_parts(table.in_parts, sum(len(record.annotations) for record in records), labels, "values")
    return DataSet(table.names, records)


def _pair_folders(series: Path, labels: Path) -> list[tuple[Path, list[Path]]]:
    if not series.is_dir():
        raise InputError(f"{series}: expected the folder of a series, not a file")
    folders = [path for path in sorted(series.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    own = [path for path in series.iterdir() if path.is_file() and not path.name.startswith(".")]
    if own or not folders:
        return [(series, _label_files(labels))]
    pairs = []
    for folder in folders:
        candidates = [labels / folder.name, *(labels / f"{folder.name}{suffix}" for suffix in SUFFIXES)]
        found = [path for path in candidates if path.exists()]
        if len(found) != 1:
            raise InputError(f"{folder}: has {len(found)} labels, expected one of {', '.join(map(str, candidates))}")
        pairs.append((folder, _label_files(found[0])))
    return pairs


def _label_files(labels: Path) -> list[Path]:
    if labels.is_file():
        return [labels]
    files = sorted(
        path for path in labels.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )
    if not files:
        raise InputError(f"{labels}: no file ends with {' or '.join(SUFFIXES)}")
    return files


def _default_names(everyone: list[Labels], labels: Path) -> list[str]:
    """Returns the class names if the caller does not pass any."""
    named = [bool(one.names) for one in everyone]
    if any(named) and not all(named):
        raise InputError(f"{labels}: some files name their segments and others do not: give `classes` or `values`")
    return list(dict.fromkeys(name for one in everyone for name in one.names.values())) or ["object"]


def _by_name(table: LabelTable, labels: Labels) -> LabelTable:
    for value, name in labels.names.items():
        if name not in table.names:
            raise InputError(
                f"{labels.file}: segment {value} is {name!r}, expected one of {', '.join(table.names)}; or give `values`"
            )
    return replace(table, categories={value: table.names.index(name) for value, name in labels.names.items()})


FORMAT = Format(
    name="dicom",
    description="DICOM series with an NRRD label map or a DICOM SEG",
    read=read_dicom,
    options=(
        Option("series", "a series, or a folder of series, one a patient", "folder", required=True),
        Option("labels", "the label map or SEG, or a folder of them", "path", required=True),
        Option("values", "the class name of every label value", "names"),
        Option("instances", '"value" or "component": what counts as one object', "text"),
        Option("level", "(center, width) of the grey values to show", "numbers"),
        Option("series_uid", "which series of a folder that has several", "text"),
    ),
    shorthand=("series", "labels"),
    extra="medical",
    lists_faults=True,
)
