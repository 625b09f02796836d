"""COCO JSON: ``annotations.json`` beside ``images/``. All contents of the records are kept. This is the only writer of COCO records."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maskrcnn_ext import __version__
from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord, keypoints_to_pixel_indices
from maskrcnn_ext.data.writers.files import check_plain_images, each_image, image_names, place_image
from maskrcnn_ext.ops.rle import rle_area, segmentation_to_rle


def write_coco(data: DataSet, folder: Path, *, link: bool) -> Counter[str]:
    """Writes a dataset; see :mod:`maskrcnn_ext.data.writers`."""
    check_plain_images(data)
    names = image_names(data)
    (folder / "images").mkdir(parents=True)
    for record, name in zip(each_image(data, "images"), names, strict=True):
        place_image(record, folder / "images" / name, link=link)
    write_coco_json(data, folder / "annotations.json", names)
    return Counter()


def write_coco_json(data: DataSet, file: Path, names: Sequence[str]) -> None:
    """Writes the annotations only. All ids count from 1.

    Args:
        data: the records.
        file: the JSON file to write.
        names: the ``file_name`` of each image.
    """
    content = to_coco_dict(data, names, renumber=True)
    info = {"description": "", "version": "1.0", "contributor": f"maskrcnn_ext {__version__}"}
    file.write_text(json.dumps({"info": info, "licenses": [], **content}), encoding="utf-8")


def to_coco_dict(
    data: DataSet, names: Sequence[str] | None = None, *, renumber: bool = False, first_category_id: int = 1
) -> dict[str, Any]:
    """Converts records to COCO's lists ``images``, ``annotations`` and ``categories``.

    Args:
        data: the records.
        names: the ``file_name`` of each image; the path of its file if None.
        renumber: whether all ids count from 1. Otherwise images and categories keep their ids, and so do annotations if each has one.
        first_category_id: the first id of categories without ids.

    Example:
        >>> to_coco_dict(DataSet(["cat"], [ImageRecord("a.jpg", 7, 48, 64)]))["images"]
        [{'id': 7, 'file_name': 'a.jpg', 'height': 48, 'width': 64}]
    """
    category_ids = None if renumber else data.category_ids
    category_ids = category_ids or list(range(first_category_id, first_category_id + len(data.classes)))
    categories: list[dict[str, Any]] = [
        {"id": category_id, "name": name} for category_id, name in zip(category_ids, data.classes, strict=True)
    ]
    if data.keypoints:
        skeleton = [[a + 1, b + 1] for a, b in data.skeleton]
        with_keypoints = {a.category for record in data.images for a in record.annotations if a.keypoints}
        for index in with_keypoints or range(len(categories)):
            categories[index].update(keypoints=data.keypoints, skeleton=skeleton)
    ids = [annotation.id for record in data.images for annotation in record.annotations]
    keep_ids = not renumber and None not in ids and len(set(ids)) == len(ids)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, record in enumerate(each_image(data, "annotations")):
        image_id = number + 1 if renumber else record.image_id
        file_name = names[number] if names is not None else record.file_name
        image: dict[str, Any] = {"id": image_id, "file_name": file_name, "height": record.height, "width": record.width}
        if record.labelled_classes is not None:
            image["labelled_category_ids"] = [category_ids[index] for index in record.labelled_classes]
        images.append(image)
        for annotation in record.annotations:
            annotation_id = annotation.id if keep_ids else len(annotations) + 1
            known = {"id": annotation_id, "image_id": image_id, "category_id": category_ids[annotation.category]}
            annotations.append({**known, **_contents(annotation, record)})
    return {"images": images, "annotations": annotations, "categories": categories}


def _contents(annotation: Annotation, record: ImageRecord) -> dict[str, Any]:
    """Returns the fields of a COCO annotation that are not ids."""
    x0, y0, x1, y1 = annotation.box
    segmentation = annotation.segmentation
    area = (x1 - x0) * (y1 - y0)
    if segmentation is not None:
        area = float(rle_area(segmentation_to_rle(segmentation, record.height, record.width)))
    contents = {
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": area,
        "iscrowd": int(annotation.crowd),
        "segmentation": [] if segmentation is None else segmentation,
    }
    if annotation.score is not None:
        contents["score"] = annotation.score
    if annotation.keypoints:
        keypoints = keypoints_to_pixel_indices(annotation.keypoints)
        contents.update(keypoints=keypoints, num_keypoints=sum(1 for visible in keypoints[2::3] if visible))
    if annotation.points:
        points = keypoints_to_pixel_indices(annotation.points)
        contents["point_coords"] = [list(point) for point in zip(points[0::3], points[1::3], strict=True)]
        contents["point_labels"] = [int(label) for label in points[2::3]]
    return contents
