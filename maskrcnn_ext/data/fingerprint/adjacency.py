"""Measures how the masks of a data set adjoin each other, and how much of their boxes they fill."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from maskrcnn_ext.data.formats.records import ImageRecord
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.rle import decode_rle, segmentation_to_rle

_NUM_DRAWN = 40  # images
# Of an image whose masks are drawn: each takes as long as the image has pixels.
_MAX_PIXELS = 4_000_000
_MAX_OBJECTS = 400


@dataclass(frozen=True)
class Adjacency:
    """Shares of the masks in a sample of images; crowds do not count.

    Attributes:
        num_masks: number of masks in the sample; 0 if no image of the data could be drawn in little time.
        touching: share of masks that touch or overlap another.
        overlapping: share of masks that overlap another.
        fill: median share of its box that a mask fills.
    """

    num_masks: int = 0
    touching: float = 0.0
    overlapping: float = 0.0
    fill: float = 0.0


def measure_adjacency(images: Sequence[ImageRecord]) -> Adjacency:
    """Draws the masks of some images, evenly chosen among those of up to 4 megapixels and 400 objects.

    Example:
        >>> from maskrcnn_ext.data.formats.records import Annotation
        >>> halves = [Annotation(0, (x, 0, x + 5, 10), [[x, 0, x + 5, 0, x + 5, 10, x, 10]]) for x in (0, 5)]
        >>> measure_adjacency([ImageRecord("a.jpg", 1, 10, 10, halves)])
        Adjacency(num_masks=2, touching=1.0, overlapping=0.0, fill=1.0)
    """
    fitting = [
        record
        for record in images
        if record.height * record.width <= _MAX_PIXELS and 0 < len(record.annotations) <= _MAX_OBJECTS
    ]
    touching, overlapping, fills = 0, 0, list[float]()
    for record in fitting[:: -(-len(fitting) // _NUM_DRAWN) or 1]:
        touch, overlap, fill = _draw(record)
        touching, overlapping = touching + len(touch | overlap), overlapping + len(overlap)
        fills += fill
    if not fills:
        return Adjacency()
    return Adjacency(len(fills), touching / len(fills), overlapping / len(fills), float(np.median(fills)))


def _draw(record: ImageRecord) -> tuple[set[int], set[int], list[float]]:
    """Returns the numbers of the masks that touch another, of those that overlap another, and the share of its box that each fills."""
    labels = np.zeros((record.height, record.width), np.int32)  # the number of the last mask drawn on each pixel
    overlapping: set[int] = set()
    fills = []
    for number, (mask, area) in enumerate(_masks(record), start=1):
        fills.append(min(1.0, int(mask.sum()) / area))
        below = set(np.unique(labels[mask]).tolist()) - {0}
        overlapping |= below | {number} if below else below
        labels[mask] = number
    touching: set[int] = set()
    for one, other in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])):
        meet = (one != other) & (one > 0) & (other > 0)
        touching |= set(one[meet].tolist()) | set(other[meet].tolist())
    return touching, overlapping, fills


def _masks(record: ImageRecord) -> Iterator[tuple[np.ndarray, float]]:
    """Yields each mask (height, width) bool, and the area of its box."""
    for found in record.annotations:
        x0, y0, x1, y1 = found.box
        area = (x1 - x0) * (y1 - y0)
        if found.crowd or not found.segmentation or not area > 0:
            continue
        try:
            rle = segmentation_to_rle(found.segmentation, record.height, record.width)
        except InputError:  # an outline that is too long; training reports it
            continue
        yield decode_rle(rle).astype(bool), area
