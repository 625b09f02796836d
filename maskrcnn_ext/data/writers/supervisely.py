"""A Supervisely project: ``meta.json``, ``ds0/img/<image>`` and ``ds0/ann/<image>.json``.

An object of one polygon is a polygon, any other with an outline a bitmap of the same pixels, and a box without one a rectangle.
"""

from __future__ import annotations

import colorsys
import json
import zlib
from base64 import b64encode
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord
from maskrcnn_ext.data.writers.files import check_plain_images, each_image, image_names, place_image
from maskrcnn_ext.data.writers.labelled_objects import label_names, labelled_objects
from maskrcnn_ext.data.writers.outlines import decode, single_polygon


def write_supervisely(data: DataSet, folder: Path, *, link: bool) -> Counter[str]:
    """Writes a dataset; see :mod:`maskrcnn_ext.data.writers`."""
    check_plain_images(data)
    lost: Counter[str] = Counter()
    for part in ("img", "ann"):
        (folder / "ds0" / part).mkdir(parents=True)
    for record, name in zip(each_image(data, "images"), image_names(data), strict=True):
        place_image(record, folder / "ds0" / "img" / name, link=link)
        objects = [_object(each, record, label, lost) for each, label in labelled_objects(record, data.classes)]
        content = {
            "description": "",
            "tags": [],
            "size": {"height": record.height, "width": record.width},
            "objects": [found for found in objects if found is not None],
        }
        (folder / "ds0" / "ann" / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    names = label_names(data, lost)
    classes = [{"title": name, "shape": "any", "color": _color(index)} for index, name in enumerate(names)]
    meta = {"classes": classes, "tags": [], "projectType": "images"}
    (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
    return lost


def _color(index: int) -> str:
    """Returns a colour such as ``#ff563f``; hues of neighbouring indices are a golden angle apart."""
    red, green, blue = colorsys.hsv_to_rgb((0.02 + 0.618034 * index) % 1.0, 0.75, 1.0)
    return f"#{int(255 * red):02x}{int(255 * green):02x}{int(255 * blue):02x}"


def _object(annotation: Annotation, record: ImageRecord, label: str, lost: Counter[str]) -> dict[str, Any] | None:
    """Returns an object of the JSON; None if the format cannot express it."""
    if annotation.crowd:
        lost["crowds left out, because Supervisely cannot mark them"] += 1
        return None
    if annotation.keypoints:
        lost["keypoints of objects left out"] += 1
    common = {"classTitle": label, "tags": [], "description": ""}
    polygon = single_polygon(annotation, record.height, record.width)
    if annotation.segmentation is None or polygon:
        x0, y0, x1, y1 = annotation.box
        points = list(zip(polygon[0::2], polygon[1::2], strict=True)) if polygon else [(x0, y0), (x1, y1)]
        exterior = [[float(x), float(y)] for x, y in points]
        kind = "polygon" if polygon else "rectangle"
        return {**common, "geometryType": kind, "points": {"exterior": exterior, "interior": []}}
    mask = decode(annotation.segmentation, record.height, record.width)
    ys, xs = mask.any(axis=1).nonzero()[0], mask.any(axis=0).nonzero()[0]
    if not len(xs):
        lost["objects left out because they have no area in their image"] += 1
        return None
    patch = mask[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1].astype(np.uint8) * 255
    png = zlib.compress(cv2.imencode(".png", patch)[1].tobytes())
    bitmap = {"data": b64encode(png).decode("ascii"), "origin": [int(xs[0]), int(ys[0])]}
    return {**common, "geometryType": "bitmap", "bitmap": bitmap}
