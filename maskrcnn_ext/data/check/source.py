"""Finds the data set that a name means, as a COCO mapping that nobody has checked yet."""

from __future__ import annotations

import os
from json import loads
from pathlib import Path
from typing import Any, NamedTuple

from maskrcnn_ext.data.check.segmentation import parse_segmentation
from maskrcnn_ext.data.check.view import EXTRA, path_in
from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord
from maskrcnn_ext.errors import InputError

_LISTS = ("images", "annotations", "categories")
_TRIED = 20  # images are enough to find their folder, though some may be missing


class Found(NamedTuple):
    """A data set.

    Attributes:
        data: a COCO mapping whose records can hold anything.
        folder: what its file names are relative to.
        name: for messages.
    """

    data: dict[str, Any]
    folder: Path
    name: str


def find(name: str, images: Path | None = None) -> Found:
    """Returns a data set.

    Args:
        name: a registered name, a string such as ``via:/data/a.json@/data/images``, or the path of a COCO file.
        images: the folder that a COCO file's names are relative to; when None, the one of the usual folders in which its images are.

    Raises:
        InputError: there is no such data set or it has no records at all; of a format other than COCO, whatever its reader refuses.
    """
    file = Path(name).expanduser()
    if file.is_file():
        return _of_file(file, images, name)
    if file.suffix == ".json" and ":" not in name:
        raise InputError(f"there is no file {name}")

    from detectron2.data import DatasetCatalog, MetadataCatalog

    from maskrcnn_ext.data.registry.catalog import load_dataset
    from maskrcnn_ext.data.registry.resolve import ensure_registered
    from maskrcnn_ext.data.registry.source import Source

    ensure_registered(name)
    source, metadata = DatasetCatalog[name], MetadataCatalog.get(name)
    if isinstance(source, Source) and source.format == "coco" and source.select is None:
        return _of_file(source.path_of("json"), images or source.path_of("images"), name)
    if metadata.get("json_file") and metadata.get("image_root"):  # registered by Detectron2's own function
        return _of_file(Path(metadata.json_file), images or Path(metadata.image_root), name)
    if images is not None:
        raise InputError(f"--images is for COCO files: data set {name} knows where its images are")
    return of_records(load_dataset(name), name)


def _of_file(file: Path, images: Path | None, name: str) -> Found:
    try:
        data = loads(file.read_bytes())
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not a JSON file ({error})") from error
    if isinstance(data, dict):
        data.setdefault("annotations", [])  # a file of images to predict
    if not isinstance(data, dict) or not all(isinstance(data.get(key), list) for key in _LISTS):
        raise InputError(
            f"{file}: not a COCO file (expected a mapping with the lists {', '.join(_LISTS)}); "
            "for another format write it in front, such as via:FILE@IMAGES"
        )
    images = images or _images_of(file, data["images"])
    if not images.is_dir():
        raise InputError(f"there is no folder of images {images}; give it with --images")
    return Found(data, images, name)


def _images_of(file: Path, images: list[Any]) -> Path:
    """The usual folder in which images are: the file's own, its parent, or one below these called ``images`` or as the file's split."""
    here, split = file.parent, file.stem.rpartition("_")[2]  # of annotations/instances_val2017.json
    names = [image.get("file_name") for image in images[:_TRIED] if isinstance(image, dict)]
    for folder in (here, here / "images", here.parent, here.parent / "images", here / split, here.parent / split):
        if any((path := path_in(folder, name)) is not None and path.is_file() for name in names):
            return folder
    return here


def of_records(data: DataSet, name: str) -> Found:
    """Returns records as a COCO mapping, with ids of its own where the format has none."""
    paths = [os.path.abspath(record.file_name) for record in data.images]  # noqa: PTH100, Path.resolve() follows links
    folder = Path(os.path.commonpath([os.path.dirname(path) for path in paths])) if paths else Path()  # noqa: PTH120
    ids = data.category_ids or list(range(1, len(data.classes) + 1))
    categories: list[dict[str, Any]] = [{"id": own, "name": text} for own, text in zip(ids, data.classes, strict=True)]
    if data.keypoints:
        skeleton = [[a + 1, b + 1] for a, b in data.skeleton]
        categories = [{**category, "keypoints": data.keypoints, "skeleton": skeleton} for category in categories]
    names = [annotation.id for record in data.images for annotation in record.annotations]
    own_names = None not in names and len(set(names)) == len(names)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for record, path in zip(data.images, paths, strict=True):
        image: dict[str, Any] = {"id": record.image_id, "file_name": Path(path).relative_to(folder).as_posix()}
        image.update(height=record.height, width=record.width, **({EXTRA: record.extra} if record.extra else {}))
        images.append(image)
        for annotation in record.annotations:
            own = annotation.id if own_names else len(annotations) + 1
            known = {"id": own, "image_id": record.image_id, "category_id": ids[annotation.category]}
            annotations.append({**known, **_annotation(annotation, record)})
    return Found({"images": images, "annotations": annotations, "categories": categories}, folder, name)


def _annotation(annotation: Annotation, record: ImageRecord) -> dict[str, Any]:
    x0, y0, x1, y1 = annotation.box
    found: dict[str, Any] = {"bbox": [x0, y0, x1 - x0, y1 - y0], "iscrowd": int(annotation.crowd)}
    if annotation.segmentation is not None:
        found["segmentation"] = annotation.segmentation
        found["area"] = parse_segmentation(annotation.segmentation, record.height, record.width).area
    if annotation.keypoints is not None:
        # Records have COCO's pixel indices moved to the pixels' centres.
        found["keypoints"] = [v if i % 3 == 2 else v - 0.5 for i, v in enumerate(annotation.keypoints)]
    return found
