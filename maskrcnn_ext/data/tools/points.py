"""Draws labelled points of objects from their masks, to try point supervision on data with masks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.rle import decode_rle, segmentation_to_rle


def make_points(data: DataSet, count: int, *, seed: int = 0) -> DataSet:
    """Returns the data with points instead of masks.

    The points of an object are drawn uniformly from the pixels of its box, as for PointSup (arXiv:2104.06404), and labelled by the mask,
    as an annotator would who marks each as inside or outside. Crowds keep their masks, and objects without mask stay as they are.

    Args:
        data: is not changed.
        count: points of an object.
        seed: of the points.

    Raises:
        InputError: `count` is less than 1, or no object has a mask.
    """
    if count < 1:
        raise InputError(f"--count {count}: expected 1 or more")
    generator = np.random.default_rng(seed)
    images = [
        replace(record, annotations=[_with_points(a, record, count, generator) for a in record.annotations])
        for record in data.images
    ]
    if not any(annotation.points for record in images for annotation in record.annotations):
        raise InputError("no object has a mask to draw points from")
    return replace(data, images=images)


def _with_points(found: Annotation, record: ImageRecord, count: int, generator: np.random.Generator) -> Annotation:
    if found.segmentation is None or found.crowd:
        return found
    mask = decode_rle(segmentation_to_rle(found.segmentation, record.height, record.width))
    x0, y0, x1, y1 = found.box
    x = np.floor(generator.uniform(x0, max(x1, x0), count)).clip(0, record.width - 1).astype(int)
    y = np.floor(generator.uniform(y0, max(y1, y0), count)).clip(0, record.height - 1).astype(int)
    triples = np.stack([x + 0.5, y + 0.5, mask[y, x]], axis=1)
    return replace(found, segmentation=None, points=triples.ravel().tolist())
