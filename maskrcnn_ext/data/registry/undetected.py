"""Says why a file or folder names no data set, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from maskrcnn_ext.common.text import plural, short_list
from maskrcnn_ext.data.formats import FORMATS
from maskrcnn_ext.data.formats.file_names import list_files
from maskrcnn_ext.data.formats.image_files import IMAGE_SUFFIXES
from maskrcnn_ext.data.formats.object_masks import image_of_object
from maskrcnn_ext.data.formats.text_files import read_json
from maskrcnn_ext.data.registry.detect import described_by_files
from maskrcnn_ext.errors import InputError

_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")
_RECORDS = (".tfrecord", ".tfrecords", ".record")
_CVAT_BACKUP = ("task.json", "project.json")


def explain_undetected(path: Path, name: str) -> str:
    """Returns the error message for a file or folder whose format is not clear.

    Args:
        path: the absolute path.
        name: the path as the user wrote it.

    Example:
        >>> explain_undetected(tmp_path, "photos")
        'photos: an empty folder'
    """
    several = described_by_files(path)
    if several:
        return f"{name}: holds {len(several)} data sets, name one of {short_list(several)}"
    reasons = (
        _of_folder(path, name) if path.is_dir() else iter([f"{name}: unpack it first"] if _is_archive(path) else [])
    )
    files = list_files(path, "*.json") if path.is_dir() else [path]
    found = next(reasons, None) or next(filter(None, map(_of_file, files)), None)
    if found is not None:
        return found
    example = (
        f"coco:{name}/a.json@{name}/images or label_image:{name}/masks@{name}/images"
        if path.is_dir()
        else f"coco:{name}@/path/images"
    )
    return f"{name}: its format cannot be detected; name it, such as {example} (the formats are {', '.join(FORMATS)})"


def _of_folder(path: Path, name: str) -> Iterator[str]:
    files = list_files(path, "*")
    if not files:
        yield f"{name}: an empty folder"
    for cellpose in list_files(path, "*_seg.npy"):
        yield f"{name}: save {cellpose.name} of Cellpose as masks: File, Save masks as PNG/tif (Cmd/Ctrl+N)"
    below = [file for file in list_files(path, "**/*") if not file.is_dir()]
    if files != below and all(map(_is_image, below)):
        images = plural(len(below), "image")
        yield f"{name}: {images} in folders, without annotations: boxes or outlines are needed, in a file or in masks (docs/data.md)"
    if all(map(_is_image, files)):
        yield f"{name}: {plural(len(files), 'image')} without annotations{_advice_on_images(files)}"
    for archive in filter(_is_archive, files):
        yield f"{name}: unpack {archive.name} first"
    for records in below:
        if records.suffix.lower() in _RECORDS:
            yield f"{name}: {records.name} holds TFRecords, which are not read: export the labels as COCO JSON instead"
    for place in ("labels", "labels/*", "*/labels"):
        for labels in list_files(path, f"{place}/*.txt"):
            text = labels.relative_to(path)
            yield f"{name}: YOLO texts such as {text}, without names of their classes: add data.yaml or classes.txt"


def _of_file(file: Path) -> str | None:
    try:
        content = read_json(file) if file.suffix.lower() == ".json" else None
    except InputError as error:
        return str(error)
    if file.suffix.lower() in _RECORDS:
        return f"{file}: TFRecords are not read: export the labels as COCO JSON instead"
    if file.name in _CVAT_BACKUP and isinstance(content, dict) and "labels" in content:
        return f"{file}: a backup of CVAT: export the task as CVAT for images 1.1 instead"
    if isinstance(content, list) and all(isinstance(task, dict) and "annotation_id" in task for task in content):
        return f"{file}: a short export of Label Studio (JSON-MIN): export as JSON instead"
    return None


def _advice_on_images(files: list[Path]) -> str:
    image_of = {file.stem: file.name for file in files}
    masks = ((file.name, image_of_object(file.stem, image_of)) for file in files)
    for mask, image in masks:
        if image is not None:
            advice = "move the masks to a folder `masks` and the images to `images`"
            return f"; if {mask} is a mask of {image_of[image]}, {advice}"
    return ": add the file or folder of the annotations"


def _is_archive(file: Path) -> bool:
    return file.suffix.lower() in _ARCHIVES


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in IMAGE_SUFFIXES
