"""Label images: ``images/``, ``labels/<image>.png`` of 16 bits (0 outside, then an object's number from 1) and ``classes.json``.

``classes.json`` is ``{"classes": [name, ...], "objects": {"<label image>": [class of object 1, of object 2, ...]}}``, classes as
indices. A pixel belongs to one object: where two overlap, the later one wins.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np

from maskrcnn_ext.data.formats.records import DataSet, ImageRecord
from maskrcnn_ext.data.writers.files import check_plain_images, each_image, image_names, place_image
from maskrcnn_ext.data.writers.outlines import decode
from maskrcnn_ext.errors import InputError

_MAX_OBJECTS = 2**16 - 1


def write_label_image(data: DataSet, folder: Path, *, link: bool) -> Counter[str]:
    """Writes a dataset; see :mod:`maskrcnn_ext.data.writers`."""
    check_plain_images(data)
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    lost: Counter[str] = Counter()
    objects = {}
    for record, name in zip(each_image(data, "images"), image_names(data), strict=True):
        place_image(record, folder / "images" / name, link=link)
        labels, categories = _paint(record, lost)
        file = (folder / "labels" / name).with_suffix(".png")
        file.write_bytes(cv2.imencode(".png", labels)[1].tobytes())  # cv2.imwrite crashes for names that are not UTF-8
        objects[file.name] = categories
    text = json.dumps({"classes": data.classes, "objects": objects}, ensure_ascii=False)
    (folder / "classes.json").write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
    return lost


def _paint(record: ImageRecord, lost: Counter[str]) -> tuple[np.ndarray, list[int]]:
    """Returns the label image (H, W) uint16, and the class of each number in it, from 1."""
    height, width = record.height, record.width
    # In 32 bits: objects that later ones hide completely also have a number until they are left out.
    painted = np.zeros((height, width), np.int32)
    categories = []
    for annotation in record.annotations:
        if annotation.crowd:
            lost["crowds left out, because label images cannot mark them"] += 1
            continue
        if annotation.keypoints:
            lost["keypoints of objects left out"] += 1
        if annotation.segmentation is None:
            lost["boxes without a mask left out"] += 1
            continue
        mask = decode(annotation.segmentation, height, width)
        hidden = np.count_nonzero(painted[mask])
        if hidden:
            lost["pixels that two objects share, which the later one keeps"] += hidden
        categories.append(annotation.category)
        painted[mask] = len(categories)
    seen, numbers = np.unique(painted, return_inverse=True)
    numbers = numbers.reshape(painted.shape) + (seen[0] != 0)
    kept = [categories[number - 1] for number in seen if number]
    if len(kept) < len(categories):
        lost["objects left out because none of their pixels is visible"] += len(categories) - len(kept)
    if len(kept) > _MAX_OBJECTS:
        raise InputError(f"image {record.image_id!r} has {len(kept)} objects, a label image holds {_MAX_OBJECTS}")
    return numbers.astype(np.uint16), kept
