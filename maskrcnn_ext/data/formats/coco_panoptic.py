"""COCO panoptic (cocodataset.org/#format-data): a JSON of segments, and one PNG an image whose colours are their ids. Things are read.

The id of a segment is red + 256 green + 65536 blue.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn_ext.data.formats import Format, Option
from maskrcnn_ext.data.formats.coco import load_coco
from maskrcnn_ext.data.formats.coco_fields import ById
from maskrcnn_ext.data.formats.coco_records import parse_categories, parse_images
from maskrcnn_ext.data.formats.file_names import path_below
from maskrcnn_ext.data.formats.image_files import read_pixels
from maskrcnn_ext.data.formats.reading_many import collected, in_threads
from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.rle import encode_labels


def read_coco_panoptic(
    json: Path,
    images: Path,
    *,
    classes: Sequence[str] | None = None,
    segments: Path | None = None,
    faults: list[str] | None = None,
) -> DataSet:
    """Reads the things of a panoptic annotation file; stuff is left out.

    Args:
        json: the annotations.
        images: the folder of the images.
        classes: class names that the file must have as things, in the order of its category ids; not checked if None.
        segments: the folder of the PNGs. If None, the folder beside the file with its name.
        faults: gets the faults of images and segments, which are left out; None to raise the first.

    Returns:
        One record per image, in the order of their ids. Segments with ``iscrowd`` are crowds.

    Raises:
        InputError: broken or other JSON, a missing PNG, one of another size than its image, a segment of an unknown category, or one
            whose id no pixel has.
    """
    content = load_coco(json)
    categories = parse_categories(content["categories"], json)
    things = [category for category in categories if category.get("isthing", 1)]
    names = [category["name"] for category in things]
    if classes and list(classes) != names:
        raise InputError(f"`classes` are {', '.join(classes)}, but the things of {json} are {', '.join(names)}")
    index_of: ById[int | None] = ById((category["id"], None) for category in categories)
    index_of.update((category["id"], index) for index, category in enumerate(things))
    records = parse_images(content["images"], json, images)
    folder = segments or json.with_suffix("")

    def add(entry: tuple[int, Any]) -> None:
        number, annotation = entry
        where = f"{json}: entry {number} of `annotations`"
        infos = annotation.get("segments_info") if isinstance(annotation, dict) else None
        if not isinstance(infos, list):
            raise InputError(f"{where} has no list `segments_info`: it is no panoptic annotation")
        try:
            record = records[annotation.get("image_id")]
        except (KeyError, TypeError):
            raise InputError(f"{where} refers to image {annotation.get('image_id')!r:.50}, which is missing") from None
        record.annotations += _things(
            path_below(folder, annotation.get("file_name"), where), infos, record, index_of, where, faults
        )

    in_threads(add, enumerate(content["annotations"]), faults)
    return DataSet(names, list(records.values()), [category["id"] for category in things])


def _things(
    file: Path,
    infos: list[Any],
    record: ImageRecord,
    index_of: ById[int | None],
    where: str,
    faults: list[str] | None,
) -> list[Annotation]:
    """Returns the things of an image; `index_of` has the class index of each category id, None for stuff."""
    pixels = read_pixels(file)
    if pixels.ndim != 3 or pixels.shape[2] < 3 or pixels.shape[:2] != (record.height, record.width):
        raise InputError(f"{file}: expected a colour PNG of {record.width} x {record.height}, found {pixels.shape}")
    numbers = pixels[..., :3].astype(np.int64) @ np.array([1, 256, 65536])
    masks = {mask.value: mask for mask in encode_labels(numbers)}
    found = []
    for info in infos:
        with collected(faults):
            if not isinstance(info, dict) or not isinstance(info.get("id"), int):
                raise InputError(f"{where}: a segment has no `id`: {info!r:.100}")
            place = f"{where}, segment {info['id']}"
            category = info.get("category_id")
            if not isinstance(category, int | str) or category not in index_of:
                raise InputError(f"{place} refers to category {category!r:.50}, which is missing")
            index = index_of[category]
            if index is None:
                continue
            mask = masks.get(info["id"])
            if mask is None:
                raise InputError(f"{place}: no pixel of {file} has its colour")
            crowd = info.get("iscrowd") in (1, True)
            found.append(Annotation(index, mask.box, mask.rle, crowd=crowd, id=info["id"]))
    return found


FORMAT = Format(
    name="coco_panoptic",
    description="COCO panoptic: the things of a JSON with a PNG an image",
    read=read_coco_panoptic,
    options=(
        Option("json", "the annotations", "file", required=True),
        Option("images", "the images", "folder", required=True),
        Option("segments", "the PNGs, if they are not in the folder beside the file with its name", "folder"),
    ),
    shorthand=("json", "images"),
    lists_faults=True,
)
