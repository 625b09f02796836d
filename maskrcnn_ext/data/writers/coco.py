"""COCO JSON: ``annotations.json`` beside ``images/``. Everything that records know is kept; all ids are counted from 1."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maskrcnn_ext import __version__
from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord
from maskrcnn_ext.data.writers.files import check_plain_images, each_image, image_names, place_image
from maskrcnn_ext.ops.rle import rle_area, segmentation_to_rle


def write_coco(data: DataSet, folder: Path, *, link: bool) -> Counter[str]:
    """Writes a data set; see :mod:`maskrcnn_ext.data.writers`."""
    check_plain_images(data)
    names = image_names(data)
    (folder / "images").mkdir(parents=True)
    for record, name in zip(each_image(data, "images"), names, strict=True):
        place_image(record, folder / "images" / name, link=link)
    write_coco_json(data, folder / "annotations.json", names)
    return Counter()


def write_coco_json(data: DataSet, file: Path, names: Sequence[str]) -> None:
    """Writes the annotations alone.

    Args:
        data: the records.
        file: the JSON.
        names: the ``file_name`` of each image.
    """
    categories: list[dict[str, Any]] = [{"id": index, "name": name} for index, name in enumerate(data.classes, start=1)]
    if data.keypoints:
        skeleton = [[a + 1, b + 1] for a, b in data.skeleton]
        with_keypoints = {a.category for record in data.images for a in record.annotations if a.keypoints}
        for index in with_keypoints or range(len(categories)):
            categories[index].update(keypoints=data.keypoints, skeleton=skeleton)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (record, name) in enumerate(zip(each_image(data, "annotations"), names, strict=True), start=1):
        images.append({"id": image_id, "file_name": name, "height": record.height, "width": record.width})
        for annotation in record.annotations:
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, **_told(annotation, record)})
    info = {"description": "", "version": "1.0", "contributor": f"maskrcnn_ext {__version__}"}
    content = {"info": info, "licenses": [], "images": images, "annotations": annotations, "categories": categories}
    file.write_text(json.dumps(content), encoding="utf-8")


def _told(annotation: Annotation, record: ImageRecord) -> dict[str, Any]:
    x0, y0, x1, y1 = annotation.box
    segmentation = annotation.segmentation
    area = (x1 - x0) * (y1 - y0)
    if segmentation is not None:
        area = float(rle_area(segmentation_to_rle(segmentation, record.height, record.width)))
    told = {
        "category_id": annotation.category + 1,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": area,
        "iscrowd": int(annotation.crowd),
        "segmentation": [] if segmentation is None else segmentation,
    }
    if annotation.keypoints:
        # Back from sub-pixel coordinates to COCO's indices of pixels.
        points = [value if index % 3 == 2 else value - 0.5 for index, value in enumerate(annotation.keypoints)]
        told.update(keypoints=points, num_keypoints=sum(1 for visible in points[2::3] if visible))
    return told
