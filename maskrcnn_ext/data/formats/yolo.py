"""YOLO text labels with the data YAML of Ultralytics (docs.ultralytics.com/datasets/segment): an image's objects are the rows of a text.

A row is ``class x y x y ...`` (the outline) or ``class cx cy w h`` (a box), in fractions of the image's width and height; if the data YAML
has ``kpt_shape``, keypoints follow the box (:mod:`maskrcnn_ext.data.formats.yolo_pose`). The text of
``.../images/a.jpg`` is ``.../labels/a.txt``, or beside the image if no folder is called ``images``. LabelImg, Label Studio and CVAT write a
text of the class names instead of the YAML.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

from maskrcnn_ext.common.text import plural
from maskrcnn_ext.common.yaml_text import load_yaml
from maskrcnn_ext.data.formats import Format, Option
from maskrcnn_ext.data.formats.checked_values import clip_box, finite
from maskrcnn_ext.data.formats.file_names import find_by_last_parts, list_files
from maskrcnn_ext.data.formats.image_files import IMAGE_SUFFIXES, image_size
from maskrcnn_ext.data.formats.polygons import box_of_polygons, check_outline
from maskrcnn_ext.data.formats.reading_many import collected, in_threads
from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord
from maskrcnn_ext.data.formats.text_files import read_text
from maskrcnn_ext.data.formats.warnings import Tally
from maskrcnn_ext.data.formats.yolo_pose import Pose, read_pose
from maskrcnn_ext.errors import InputError

logger = logging.getLogger(__name__)

# How far rounding may put a coordinate outside the image, as a fraction of its size: half a pixel of an image of 50 pixels.
_TOLERANCE = 1e-2
_BOX_VALUES = 5  # of a row: the class and the box
# Texts of class names, one a line, and folders beside them that hold the images: "obj..." are those of CVAT.
NAMES_FILES = ("classes.txt", "obj.names")
_FOLDERS = ("images", "obj_train_data", ".")
_SPLIT_FOLDERS = ("train", "val", "valid", "test")
# Keys of data files whose text or list is not a split.
_NO_SPLITS = ("names", "path", "download", "yaml_file", "kpt_shape", "flip_idx", "kpt_names")


def read_yolo(
    yaml: Path,
    *,
    classes: Sequence[str] | None = None,
    split: str = "train",
    root: Path | None = None,
    faults: list[str] | None = None,
) -> DataSet:
    """Reads one split of a YOLO data set.

    Args:
        yaml: the data file, with ``names`` and the splits: folders, texts that list images, or lists of such. Or a text of class names,
            one a line; the only split is then ``train``, the images beside it or in ``images``.
        classes: the class names that the file must have; checked when given.
        split: which of the splits.
        root: the folder that the splits are relative to. When not given: the file's ``path``, itself relative to the YAML, or the
            YAML's own folder.
        faults: gets the faults of images and rows, which are left out; None to raise the first.

    Returns:
        One record per image. Images without a text, which a warning counts, or with an empty one have no objects. Rows that are boxes
        have no segmentation. With ``kpt_shape``, a row is a box and its keypoints, or a box alone. Objects that extend beyond their image
        by rounding are clipped, with a warning that counts them.

    Raises:
        InputError: a broken YAML, other classes, no images, none with a text, an unreadable one, or a row that is neither a box nor an
            outline, has no area, another class or coordinates far outside of the image.
    """
    data = _read_yaml(yaml)
    names = _names(data, yaml)
    if classes and list(classes) != names:
        raise InputError(f"`classes` are {', '.join(classes)}, but {yaml} has {', '.join(names)}")
    pose = read_pose(data, yaml)
    splits = _splits(data)
    if split not in splits:
        raise InputError(f"{yaml}: no split `{split}`, it has {', '.join(splits) or 'none'}")
    if split != "train" and data[split] == data.get("train"):
        logger.warning("%s: split %s is the same as train: results on it are results on the training data", yaml, split)
    root = root or _root(data, yaml)
    entries = data[split] if isinstance(data[split], list) else [data[split]]
    files = [file for entry in entries for file in _images(_resolve(root, str(entry), yaml), root)]
    if not files or len(files) != len(set(files)):
        trouble = "has no images" if not files else "names an image twice"
        raise InputError(f"{yaml}: split `{split}` {trouble} (looked in {', '.join(map(str, entries))} below {root})")
    without = [file for file in files if not _labels_file(file).exists()]
    if len(without) == len(files):
        raise InputError(f"{yaml}: no image of split `{split}` has labels, such as {_labels_file(files[0])}")
    if without:
        have = "has" if len(without) == 1 else "have"
        summary = (
            f"{len(without)} of {plural(len(files), 'image')} {have} no labels and so no objects, such as {without[0]}"
        )
        logger.warning("%s: split %s: %s", yaml, split, summary)
    tally = Tally()
    records = in_threads(lambda file: _record(file, root, names, pose, faults, tally), files, faults)
    tally.warn(yaml)
    return DataSet(names, records, keypoints=pose.names if pose else [])


def list_splits(yaml: Path) -> list[str]:
    """Returns the names of the splits of a data file; those whose files exist, if any do: exports name ``valid`` without images."""
    data = _read_yaml(yaml)
    root = _root(data, yaml)
    return [split for split in _splits(data) if _has_files(data[split], root, yaml)] or _splits(data)


def _has_files(entries: str | list[Any], root: Path, yaml: Path) -> bool:
    try:
        return all(_resolve(root, str(entry), yaml) for entry in (entries if isinstance(entries, list) else [entries]))
    except InputError:
        return False


def _root(data: dict[str, Any], yaml: Path) -> Path:
    """Returns the folder that the splits are relative to; ``path`` may be that of another machine."""
    place = yaml.parent / str(data.get("path") or "")
    return place if os.path.isdir(place) else yaml.parent  # noqa: PTH112


def folders_of_images(folder: Path) -> dict[str, str]:
    """Returns the folders of images beside a text of class names, relative to it, by their splits; those that have an image with labels."""

    def has_labels(name: str) -> bool:
        files = list_files(folder / name, "*")
        return any(file.suffix.lower() in IMAGE_SUFFIXES and _labels_file(file).is_file() for file in files)

    whole = next(filter(has_labels, _FOLDERS), None)
    if whole is not None:
        return {"train": whole}
    found = {
        split: next(filter(has_labels, (f"images/{split}", f"{split}/images", split)), None) for split in _SPLIT_FOLDERS
    }
    return {split: name for split, name in found.items() if name is not None}


def _splits(data: dict[str, Any]) -> list[str]:
    return [
        str(key) for key, value in data.items() if key not in _NO_SPLITS and value and isinstance(value, str | list)
    ]


def _read_yaml(file: Path) -> dict[str, Any]:
    if file.name in NAMES_FILES:
        names = [line.strip() for line in read_text(file).splitlines() if line.strip()]
        return {"names": names, **(folders_of_images(file.parent) or {"train": "images"})}
    data = load_yaml(read_text(file), file)
    if not isinstance(data, dict) or not isinstance(data.get("names"), (list, dict)) or not data["names"]:
        raise InputError(f"{file}: not a YOLO data file (expected a mapping with `names`, `train`, `val`)")
    return data


def _names(data: dict[str, Any], file: Path) -> list[str]:
    names = data["names"]
    if isinstance(names, dict):
        names = {str(key): name for key, name in names.items()}
        if set(names) != set(map(str, range(len(names)))):
            raise InputError(f"{file}: the keys of `names` are {', '.join(names)}, expected 0, 1, 2, ...")
        names = [names[str(index)] for index in range(len(names))]
    if data.get("nc", len(names)) != len(names):
        raise InputError(f"{file}: `nc` is {data['nc']}, but there are {len(names)} names")
    return [str(name) for name in names]


def _resolve(root: Path, entry: str, yaml: Path) -> Path:
    # Exported files write ../train/images for a folder beside the YAML, and Ultralytics reads them so.
    entry = entry.replace("\\", "/")
    place = root / entry
    if not os.path.exists(place):  # noqa: PTH110, pathlib's raises where a name is too long
        # Of another machine. One part alone may be that of another split: ../valid/images is not images.
        found = find_by_last_parts(root, PureWindowsPath(entry), least=min(2, entry.removeprefix("../").count("/") + 1))
        if found is None:
            raise InputError(
                f"{yaml}: no {entry} below {root}; correct the paths of {yaml.name}, or name their folder by @root:FOLDER"
            )
        return found
    return place


def _images(place: Path, root: Path) -> list[Path]:
    """Returns the images in and below a folder, or those that a text lists."""
    if place.is_dir():
        return [path for path in list_files(place, "**/*") if path.suffix.lower() in IMAGE_SUFFIXES]
    files = []
    for line in filter(None, map(str.strip, read_text(place).replace("\\", "/").splitlines())):
        beside, below = place.parent / line, root / line
        files.append(beside if beside.is_file() or line.startswith("./") else below)
    return files


def _labels_file(image: Path) -> Path:
    parts = list(image.parts)
    folders = [index for index, part in enumerate(parts[:-1]) if part == "images"]
    if folders:
        parts[folders[-1]] = "labels"
    return Path(*parts).with_suffix(".txt")


def _record(
    image: Path, root: Path, names: list[str], pose: Pose | None, faults: list[str] | None, tally: Tally
) -> ImageRecord:
    labels = _labels_file(image)
    height, width = image_size(image, str(labels))
    name = image.relative_to(root) if image.is_relative_to(root) else image
    record = ImageRecord(str(image), name.as_posix(), height, width)
    if not labels.exists():
        return record
    for number, line in enumerate(read_text(labels).splitlines(), start=1):
        if line.strip():
            where = f"{labels}, line {number}"
            with collected(faults):
                row = finite(line.split(), where)
                keypoints = row[_BOX_VALUES:] if pose else []
                annotation = _annotation(row[:_BOX_VALUES] if pose else row, record, names, where, tally)
                if pose and keypoints:
                    annotation.keypoints = pose.read(keypoints, height, width, _TOLERANCE, where)
                record.annotations.append(annotation)
    return record


def _annotation(row: list[float], record: ImageRecord, names: list[str], where: str, tally: Tally) -> Annotation:
    category, values = row[0], row[1:]
    if category not in range(len(names)):
        raise InputError(f"{where}: class {category:g}, expected 0 to {len(names) - 1}")
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        raise InputError(
            f"{where}: {len(values)} numbers after the class, expected 4 (box) or an even number from 6 on"
        )
    outside = [value for value in values if not -_TOLERANCE <= value <= 1 + _TOLERANCE]
    if outside:
        raise InputError(f"{where}: {outside[0]:g} is outside of the image; coordinates are fractions from 0 to 1")
    height, width = record.height, record.width
    scaled = [value * (height if index % 2 else width) for index, value in enumerate(values)]
    if len(scaled) == 4:
        cx, cy, w, h = scaled
        box = clip_box((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), height, width, where, tally.clipped)
        return Annotation(int(category), box)
    if not 0 <= min(values) <= max(values) <= 1:
        tally.clipped.append(where)
        scaled = [min(max(value, 0.0), float(height if index % 2 else width)) for index, value in enumerate(scaled)]
    check_outline(scaled, height, width, where)
    return Annotation(int(category), box_of_polygons([scaled], height, width), [scaled])


FORMAT = Format(
    name="yolo",
    description="YOLO texts of outlines or boxes, with a YAML file",
    read=read_yolo,
    options=(
        Option("yaml", "the data file, or a text of class names", "file", required=True),
        Option("split", "which split of the data file", "text"),
        Option("root", "the folder that the splits are relative to", "folder"),
    ),
    shorthand=("yaml",),
    split_option="split",
    default_split="train",
    list_splits=list_splits,
    lists_faults=True,
)
