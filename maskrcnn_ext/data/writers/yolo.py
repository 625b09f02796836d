"""YOLO with the data YAML of Ultralytics: ``images/``, ``labels/<image>.txt`` and ``data.yaml``.

A row is the class and one polygon, so that an object of several parts, or with holes, becomes one polygon whose parts bridges without
area connect. In a data set of boxes alone the rows are boxes.
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
    """Writes a data set; see :mod:`maskrcnn_ext.data.writers`."""
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
        (folder / "labels" / name).with_suffix(".txt").write_text(text, encoding="utf-8")
    # Ultralytics wants both splits named.
    content = {"train": "images", "val": "images", "names": dict(enumerate(data.classes))}
    told = "# One data set was converted: let `val` lead to the images of another one.\n"
    (folder / "data.yaml").write_text(
        told + yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8"
    )
    return lost


def _row(annotation: Annotation, record: ImageRecord, boxes_only: bool, lost: Counter[str]) -> str:
    """Returns a row, empty where the object cannot be told."""
    if annotation.crowd:
        lost["crowds left out: YOLO has no mark for them"] += 1
        return ""
    if annotation.keypoints:
        lost["keypoints of objects left out"] += 1
    # A box beyond the image's edge would make Ultralytics drop the whole image.
    x0, x1 = (min(max(x, 0), record.width) for x in annotation.box[0::2])
    y0, y1 = (min(max(y, 0), record.height) for y in annotation.box[1::2])
    values: Sequence[float]
    if boxes_only:
        values = [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0]
    elif annotation.segmentation is None:
        lost["boxes written as rectangles, since rows of outlines and of boxes do not mix"] += 1
        values = [x0, y0, x1, y0, x1, y1, x0, y1]
    else:
        polygons = polygons_of(annotation, record.height, record.width)
        values = join_rings([np.reshape(polygon, (-1, 2)) for polygon in polygons]).ravel().tolist() if polygons else []
    if not values or x0 >= x1 or y0 >= y1:
        lost["objects left out that have no area in their image"] += 1
        return ""
    scale = (record.width, record.height)
    # All digits: rasterisers round at fifths of a pixel, where a coordinate with one decimal may stand exactly.
    return " ".join([str(annotation.category), *(f"{float(value / scale[i % 2])!r}" for i, value in enumerate(values))])
