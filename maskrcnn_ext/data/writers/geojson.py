"""GeoJSON in pixels, as QuPath imports it: ``images/`` and ``labels/<image>.geojson``, one feature an object, with holes.

It is read back as ``geo:labels@images@pixels:true@attribute:classification``.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord
from maskrcnn_ext.data.writers.files import check_plain_images, each_image, image_names, place_image
from maskrcnn_ext.data.writers.labelled_objects import label_names
from maskrcnn_ext.data.writers.outlines import decode, geometry_of_mask, single_polygon


def write_geojson(data: DataSet, folder: Path, *, link: bool) -> Counter[str]:
    """Writes a dataset; see :mod:`maskrcnn_ext.data.writers`."""
    check_plain_images(data)
    lost: Counter[str] = Counter()
    label_names(data, lost)  # counts equal names, which become one class
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    for record, name in zip(each_image(data, "images"), image_names(data), strict=True):
        place_image(record, folder / "images" / name, link=link)
        features = []
        for annotation in record.annotations:
            outline = _outline(annotation, record, lost)
            if outline is not None:
                features.append(_feature(outline, data.classes[annotation.category], annotation.score))
        text = json.dumps({"type": "FeatureCollection", "features": features})
        (folder / "labels" / name).with_suffix(".geojson").write_text(text, encoding="utf-8")
    return lost


def _feature(outline: shapely.Geometry, label: str, score: float | None) -> dict[str, Any]:
    properties: dict[str, Any] = {"objectType": "annotation", "classification": {"name": label}}
    if score is not None:
        properties["measurements"] = {"score": score}
    return {"type": "Feature", "geometry": shapely.geometry.mapping(outline), "properties": properties}


def _outline(annotation: Annotation, record: ImageRecord, lost: Counter[str]) -> shapely.Geometry | None:
    """Returns the valid outline of an object; None if the format cannot express it."""
    if annotation.crowd:
        lost["crowds left out, because GeoJSON cannot mark them"] += 1
        return None
    if annotation.keypoints:
        lost["keypoints of objects left out"] += 1
    if annotation.segmentation is None:
        lost["boxes written as rectangles: GeoJSON has outlines only"] += 1
        return shapely.box(*annotation.box)
    polygon = single_polygon(annotation, record.height, record.width)
    outline = shapely.Polygon(np.reshape(polygon, (-1, 2))) if polygon else None
    if outline is None or not outline.is_valid or not outline.area:
        outline = geometry_of_mask(decode(annotation.segmentation, record.height, record.width))
    if outline.is_empty:
        lost["objects left out because they have no area in their image"] += 1
        return None
    return outline
