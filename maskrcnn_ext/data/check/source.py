"""Finds a dataset by its name and returns it as a COCO mapping whose records are unchecked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from maskrcnn_ext.common.text import natural_sort_key
from maskrcnn_ext.data.check.view import EXTRA
from maskrcnn_ext.data.formats.coco import check_classes, load_coco
from maskrcnn_ext.data.formats.coco_annotations import add_annotations
from maskrcnn_ext.data.formats.coco_fields import read_id, read_text
from maskrcnn_ext.data.formats.coco_records import keypoint_names, parse_categories, parse_images
from maskrcnn_ext.data.formats.records import DataSet
from maskrcnn_ext.data.registry.detect import detect
from maskrcnn_ext.data.registry.image_places import images_folder
from maskrcnn_ext.data.writers.coco import to_coco_dict
from maskrcnn_ext.errors import InputError


class Found(NamedTuple):
    """A dataset whose records are unchecked.

    Attributes:
        data: a mapping with the lists ``images``, ``annotations`` and ``categories``.
        folder: the folder that file names are relative to.
        name: for messages.
    """

    data: dict[str, Any]
    folder: Path
    name: str


def find(name: str, images: Path | None = None, faults: list[str] | None = None) -> Found:
    """Finds a dataset.

    Args:
        name: a registered name, a string such as ``via:/data/a.json@/data/images``, or the path of a COCO file.
        images: the folder that the file names of a COCO file are relative to. If None, the usual folders are searched.
        faults: gets the faults of records of other formats that cannot be read and are left out; None to raise the first.

    Raises:
        InputError: there is no such dataset, it is not COCO JSON, or the reader of another format refuses it.
    """
    file = Path(name).expanduser()
    if file.is_file():
        detected = None if file.suffix == ".json" and images is not None else detect(file)
        if detected is None or detected.startswith("coco:"):
            return _of_file(file, images, name)
    elif file.suffix == ".json" and ":" not in name:
        raise InputError(f"there is no file {name}")

    from maskrcnn_ext.data.registry.catalog import load_dataset
    from maskrcnn_ext.data.registry.resolve import described_source, ensure_registered
    from maskrcnn_ext.data.registry.source import Source

    source: Any = described_source(name)
    metadata: Any = {}
    if source is None:
        from detectron2.data import DatasetCatalog, MetadataCatalog

        ensure_registered(name)
        source, metadata = DatasetCatalog[name], MetadataCatalog.get(name)
    if isinstance(source, Source) and source.format == "coco" and source.select is None and not source.ignored:
        found = _of_file(source.path_of("json"), images or source.path_of("images"), name)
        return found._replace(data=_with_options(found.data, source.options, name))
    if metadata.get("json_file") and metadata.get("image_root"):  # registered by Detectron2's own function
        return _of_file(Path(metadata.json_file), images or Path(metadata.image_root), name)
    if images is not None:
        raise InputError(f"--images is for COCO files: data set {name} has its own image folder")
    if isinstance(source, Source):
        data = source.read(faults)
        if faults is not None:
            faults.sort(key=natural_sort_key)
        return of_records(data, name)
    return of_records(load_dataset(name), name)


def to_records(found: Found) -> DataSet:
    """Returns the records of a COCO mapping, which must be sound; the inverse of :func:`of_records`."""
    categories = parse_categories(found.data["categories"], found.name)
    records = parse_images(found.data["images"], found.name, found.folder)
    add_annotations(found.data["annotations"], records, categories, found.name)
    return DataSet(
        [category["name"] for category in categories], list(records.values()), keypoints=keypoint_names(categories)
    )


def _of_file(file: Path, images: Path | None, name: str) -> Found:
    data = load_coco(file)
    images = images or images_folder(file, data["images"])
    if not images.is_dir():
        raise InputError(f"there is no folder of images {images}; give it with --images")
    return Found(data, images, name)


def _with_options(data: dict[str, Any], options: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Returns the records that the options of the format select."""
    annotations, categories = data["annotations"], data["categories"]
    if options.get("crowds") == "objects":
        annotations = [{**entry, "iscrowd": 0} if isinstance(entry, dict) else entry for entry in annotations]
    only = options.get("only")
    if only is not None:
        check_classes(only, [str(read_text(entry, "name")) for entry in categories], name)
        left_out = [entry for entry in categories if read_text(entry, "name") not in only]
        ids = {read_id(entry, "id") for entry in left_out}
        annotations = [entry for entry in annotations if read_id(entry, "category_id") not in ids]
        categories = [entry for entry in categories if entry not in left_out]
    return {**data, "annotations": annotations, "categories": categories}


def of_records(data: DataSet, name: str) -> Found:
    """Returns the records of another format as a COCO mapping. Categories and annotations without ids are numbered from 1."""
    paths = [os.path.abspath(record.file_name) for record in data.images]  # noqa: PTH100, Path.resolve() follows links
    folder = Path(os.path.commonpath([os.path.dirname(path) for path in paths])) if paths else Path()  # noqa: PTH120
    content = to_coco_dict(data, [Path(path).relative_to(folder).as_posix() for path in paths])
    for image, record in zip(content["images"], data.images, strict=True):
        if record.extra:
            image[EXTRA] = record.extra
    return Found(content, folder, name)
