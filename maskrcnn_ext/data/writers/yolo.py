"""YOLO with the data YAML of Ultralytics: ``images/``, ``labels/<image>.txt`` and ``data.yaml``.

A row is the class and one polygon. An object with several parts or holes becomes one polygon, its parts connected by bridges without
area. In a dataset that has only boxes, the rows are boxes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord
from maskrcnn_ext.data.writers.files import check_plain_images, each_image, image_names, place_image
from maskrcnn_ext.data.writers.outlines import join_rings, polygons_of


def write_yolo(data: DataSet, folder: Path, *, link: bool) -> Counter[str]:
    """Writes a dataset; see :mod:`maskrcnn_ext.data.writers`."""
    import yaml

    check_plain_images(data)
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    boxes_only = not any(a.segmentation is not None for record in data.images for a in record.annotations)
    lost: Counter[str] = Counter()
    for record, name in zip(each_image(data, "images"), image_names(data), strict=True):
        place_image(record, folder / "images" / name, link=link)
        rows = [_row(annotation, record, boxes_only, lost) for annotation in record.annotations]
        text = "".join(f"{row}\n" for row in rows if row)
        (folder / "labels" / name).with_suffix(".txt").write_text(text, encoding="utf-8", errors="backslashreplace")
    # Ultralytics requires both splits.
    content = {"train": "images", "val": "images", "names": dict(enumerate(data.classes))}
    comment = "# One dataset was converted: set `val` to the images of another one.\n"
    text = comment + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    (folder / "data.yaml").write_text(text, encoding="utf-8", errors="backslashreplace")
    return lost


def _row(annotation: Annotation, record: ImageRecord, boxes_only: bool, lost: Counter[str]) -> str:
    """Returns the row of an object; empty if the format cannot express it."""
    if annotation.crowd:
        lost["crowds left out, because YOLO cannot mark them"] += 1
        return ""
    if annotation.keypoints:
        lost["keypoints of objects left out"] += 1
    # Ultralytics drops an image with a box beyond its edge.
    x0, x1 = (min(max(x, 0), record.width) for x in annotation.box[0::2])
    y0, y1 = (min(max(y, 0), record.height) for y in annotation.box[1::2])
    values: Sequence[float]
    if boxes_only:
        values = [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0]
    elif annotation.segmentation is None:
        lost["boxes written as rectangles, since rows of outlines and boxes cannot be mixed"] += 1
        values = [x0, y0, x1, y0, x1, y1, x0, y1]
    else:
        polygons = polygons_of(annotation, record.height, record.width)
        values = join_rings([np.reshape(polygon, (-1, 2)) for polygon in polygons]).ravel().tolist() if polygons else []
    if not values or x0 >= x1 or y0 >= y1:
        lost["objects left out because they have no area in their image"] += 1
        return ""
    scale = (record.width, record.height)
    # All digits are written: rasterisers round at fifths of a pixel, which coordinates with one decimal hit exactly.
    return " ".join([str(annotation.category), *(f"{float(value / scale[i % 2])!r}" for i, value in enumerate(values))])
