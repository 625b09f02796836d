"""COCO panoptic: ``panoptic.json``, ``panoptic/<image>.png`` and ``images/``. All classes are things.

A pixel belongs to one segment: where two objects overlap, the later one has it.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from maskrcnn_ext.data.formats.records import DataSet, ImageRecord
from maskrcnn_ext.data.writers.files import check_plain_images, each_image, image_names, place_image
from maskrcnn_ext.data.writers.outlines import decode
from maskrcnn_ext.ops.rle import encode_labels, rle_area


def write_coco_panoptic(data: DataSet, folder: Path, *, link: bool) -> Counter[str]:
    """Writes a dataset; see :mod:`maskrcnn_ext.data.writers`."""
    check_plain_images(data)
    lost: Counter[str] = Counter()
    for part in ("images", "panoptic"):
        (folder / part).mkdir(parents=True)
    ids = data.category_ids or list(range(1, len(data.classes) + 1))
    categories = [{"id": i, "name": n, "isthing": 1} for i, n in zip(ids, data.classes, strict=True)]
    images, annotations = [], []
    for number, (record, name) in enumerate(zip(each_image(data, "images"), image_names(data), strict=True), start=1):
        place_image(record, folder / "images" / name, link=link)
        segments, infos = _segments(record, ids, lost)
        file = (folder / "panoptic" / name).with_suffix(".png")
        colours = np.stack([segments >> 16, segments >> 8 & 255, segments & 255], axis=2).astype(np.uint8)
        file.write_bytes(cv2.imencode(".png", colours)[1].tobytes())  # BGR: the red is the lowest byte
        images.append({"id": number, "file_name": name, "height": record.height, "width": record.width})
        annotations.append({"image_id": number, "file_name": file.name, "segments_info": infos})
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "panoptic.json").write_text(json.dumps(content), encoding="utf-8")
    return lost


def _segments(record: ImageRecord, ids: list[int], lost: Counter[str]) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Returns the id of each pixel's segment (H, W) int32, 0 for none, and the records of the segments."""
    painted = np.zeros((record.height, record.width), np.int32)
    hidden = drawn = 0
    for number, annotation in enumerate(record.annotations, start=1):
        if annotation.keypoints:
            lost["keypoints of objects left out"] += 1
        if annotation.segmentation is None:
            lost["boxes without a mask left out"] += 1
            continue
        mask = decode(annotation.segmentation, record.height, record.width)
        hidden += np.count_nonzero(painted[mask])
        drawn += 1
        painted[mask] = number
    infos = []
    for segment in encode_labels(painted):
        annotation = record.annotations[segment.value - 1]
        x0, y0, x1, y1 = (int(edge) for edge in segment.box)
        infos.append(
            {
                "id": segment.value,
                "category_id": ids[annotation.category],
                "area": rle_area(segment.rle),
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "iscrowd": int(annotation.crowd),
            }
        )
    if hidden:
        lost["pixels that two objects share, which the later one keeps"] += hidden
    if len(infos) < drawn:
        lost["objects left out because none of their pixels is visible"] += drawn - len(infos)
    return painted, infos
