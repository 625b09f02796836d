"""KITTI MOTS (vision.rwth-aachen.de/page/mots; arXiv:1902.03604): tracks of cars and pedestrians with masks, as PNGs or as texts.

A PNG ``<sequence>/<frame>.png`` of 16 bits holds ``1000 * class + number``, and 10000 in ignored regions. A text ``<sequence>.txt`` has
the same content in rows ``frame id class height width rle``. Object ids hold for a whole sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn_ext.common.text import plural
from maskrcnn_ext.data.formats import Format, Option
from maskrcnn_ext.data.formats.checked_values import checked_rle
from maskrcnn_ext.data.formats.file_names import list_files, list_images
from maskrcnn_ext.data.formats.image_files import check_size, image_size, read_pixels
from maskrcnn_ext.data.formats.reading_many import collected, in_threads
from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord
from maskrcnn_ext.data.formats.text_files import read_text
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.rle import encode_labels

_CLASS_IDS = {"car": 1, "pedestrian": 2}
_IGNORE = 10
_DIGITS = 19


def read_kitti_mots(
    instances: Path,
    images: Path,
    *,
    classes: Sequence[str] | None = None,
    sequences: Sequence[str] | None = None,
    faults: list[str] | None = None,
) -> DataSet:
    """Reads KITTI MOTS.

    Args:
        instances: the folder of the sequences' folders of PNGs (``instances``), or of their texts (``instances_txt``).
        images: the folder of the sequences' folders of frames, such as ``training/image_02``.
        classes: "car", "pedestrian" or both, in the order of the model; both when not given.
        sequences: which sequences, such as "0002"; all when not given.
        faults: gets the faults of frames and rows, which are left out; None to raise the first.

    Returns:
        One record per annotated frame, sorted, with the id "<sequence>/<frame>". With texts, all frames are annotated, those without rows
        have no objects. An annotation's id is that of its track. An ignored region is a crowd of every class.

    Raises:
        InputError: no such files, one that is damaged, of another size than its frame or of an unknown class; a missing frame.
    """
    names = list(classes or _CLASS_IDS)
    unknown = [name for name in names if name not in _CLASS_IDS]
    if unknown:
        raise InputError(f"{instances}: class {unknown[0]!r}, expected some of {', '.join(_CLASS_IDS)}")
    found = [path for path in list_files(instances, "*") if path.is_dir() or path.suffix == ".txt"]
    if sequences is not None:
        missing = set(sequences) - {path.stem for path in found}
        if missing:
            raise InputError(f"{instances}: no sequence {min(missing)}")
        found = [path for path in found if path.stem in set(sequences)]
    if not found:
        raise InputError(f"{instances}: no <sequence>/*.png or <sequence>.txt here")
    records = []
    for path in found:
        with collected(faults):
            records += (_read_pngs if path.is_dir() else _read_rows)(path, images / path.stem, names, faults)
    return DataSet(names, records)


def read_tracks_png(file: Path) -> np.ndarray:
    """Returns the values (H, W) of a PNG of KITTI MOTS, ``1000 * class + number``.

    Raises:
        InputError: it has several channels, or 8 bits, which cannot hold a class.
    """
    pixels = read_pixels(file)
    if pixels.ndim != 2 or pixels.itemsize == 1:
        channels = 1 if pixels.ndim == 2 else pixels.shape[2]
        raise InputError(
            f"{file}: has {plural(channels, 'channel')} of {8 * pixels.dtype.itemsize} bits, expected one of 16 bits: 1000 * class + number"
        )
    return pixels


def _read_pngs(folder: Path, frames: Path, names: list[str], faults: list[str] | None) -> list[ImageRecord]:
    photographs = list_images(frames)

    def read(file: Path) -> ImageRecord:
        if file.stem not in photographs:
            raise InputError(f"{file}: no frame {file.stem} in {frames}")
        record = _record(photographs[file.stem], frames, str(file))
        for value, box, rle in encode_labels(check_size(read_tracks_png(file), file, record.height, record.width)):
            record.annotations += _annotations(value // 1000, value, box, rle, names, str(file))
        return record

    files = list_files(folder, "*.png")
    if not files:
        raise InputError(f"{folder}: no <frame>.png here")
    return in_threads(read, files, faults)


def _read_rows(file: Path, frames: Path, names: list[str], faults: list[str] | None) -> list[ImageRecord]:
    photographs = list_images(frames)
    records = in_threads(lambda image: _record(image, frames, str(file)), photographs.values(), faults)
    stems = ((Path(record.file_name).stem, record) for record in records)
    numbers = {int(stem): record for stem, record in stems if stem.isdecimal()}
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        where = f"{file}, line {number}"
        fields = line.split()
        if not fields:
            continue
        with collected(faults):
            _add_row(fields, numbers, frames, names, where)
    return records


def _add_row(fields: list[str], records: dict[int, ImageRecord], frames: Path, names: list[str], where: str) -> None:
    """Adds the object of a row to its frame."""
    # Longer numbers have no meaning here, and Python refuses the longest.
    if len(fields) != 6 or not all(field.isdecimal() and len(field) < _DIGITS for field in fields[:5]):
        raise InputError(f"{where}: expected `frame id class height width rle`")
    frame, track, class_id, height, width = map(int, fields[:5])
    if frame not in records:
        raise InputError(f"{where}: no frame {frame} in {frames}")
    record = records[frame]
    if (height, width) != (record.height, record.width):
        raise InputError(f"{where}: {width} x {height}, but {record.file_name} is {record.width} x {record.height}")
    box, rle = checked_rle({"size": [height, width], "counts": fields[5]}, height, width, where)
    record.annotations += _annotations(class_id, track, box, rle, names, where)


def _record(image: Path, frames: Path, where: str) -> ImageRecord:
    return ImageRecord(str(image), f"{frames.name}/{image.stem}", *image_size(image, where))


def _annotations(
    class_id: int,
    track: int,
    box: tuple[float, float, float, float],
    rle: dict[str, Any],
    names: list[str],
    where: str,
) -> list[Annotation]:
    if class_id == _IGNORE:
        return [Annotation(category, box, rle, crowd=True, id=track) for category in range(len(names))]
    name = next((name for name, own in _CLASS_IDS.items() if own == class_id), None)
    if name is None:
        raise InputError(
            f"{where}: object {track} is of class {class_id}, expected 1 (car), 2 (pedestrian), 10 (ignore)"
        )
    return [Annotation(names.index(name), box, rle, id=track)] if name in names else []


FORMAT = Format(
    name="kitti_mots",
    description="KITTI MOTS: instance PNGs or RLE texts of video frames",
    read=read_kitti_mots,
    options=(
        Option("instances", "the sequences' folders of PNGs, or their texts", "folder", required=True),
        Option("images", "the sequences' folders of frames", "folder", required=True),
        Option("sequences", 'which sequences, such as "0002"', "texts"),
    ),
    shorthand=("instances", "images"),
    split_option="sequences",
    lists_faults=True,
)
