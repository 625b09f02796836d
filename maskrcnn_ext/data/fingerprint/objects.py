"""Measures the objects of a data set: classes, numbers, sizes, and how their masks adjoin each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.rle import decode_rle, pairwise_iou, segmentation_to_rle

_NUM_BOXES = 10_000  # kept at most
_NUM_DRAWN = 40  # images whose masks are drawn
_MAX_DRAWN_PIXELS = 4_000_000  # of an image whose masks are drawn
_MAX_DRAWN_OBJECTS = 400
_CROWDED = 0.5  # IoU of boxes from which the usual suppression at inference removes one of two objects


@dataclass(frozen=True, eq=False)
class ObjectFigures:
    """Figures of the objects of a data set. Groups of objects (crowds) are only counted.

    Attributes:
        classes: names, in the order of the categories.
        counts: number of objects of each class.
        images_with: number of images with an object of each class.
        num_crowds: number of groups of objects.
        per_image: number of objects of each image.
        boxes: (N, 4) float32, x0, y0, x1, y1 in pixels, inside the image; at most 10 000, evenly chosen.
        image_sizes: (N, 2) float32, width and height of each box's image.
        outlined: share of the objects that have an outline.
        has_polygons_only: whether all outlines are polygons.
        keypoints: names of the keypoints; empty if no object has keypoints.
        touching: share of objects whose mask touches or overlaps the mask of another; of a sample of images.
        overlapping: share of objects whose mask overlaps the mask of another; of the same sample.
        crowded: share of objects whose box overlaps a box of the same class by an IoU above 0.5; of the same sample.
        fill: median share of its box that a mask fills; 1 without masks.
    """

    classes: tuple[str, ...]
    counts: tuple[int, ...]
    images_with: tuple[int, ...]
    num_crowds: int
    per_image: tuple[int, ...]
    boxes: np.ndarray
    image_sizes: np.ndarray
    outlined: float
    has_polygons_only: bool
    keypoints: tuple[str, ...] = ()
    touching: float = 0.0
    overlapping: float = 0.0
    crowded: float = 0.0
    fill: float = 1.0

    @property
    def total(self) -> int:
        """Number of objects."""
        return sum(self.counts)

    @property
    def num_labelled(self) -> int:
        """Number of images with objects: Detectron2 trains on no others."""
        return sum(count > 0 for count in self.per_image)

    @property
    def most(self) -> int:
        """Largest number of objects in an image."""
        return max(self.per_image, default=0)

    @property
    def sides(self) -> np.ndarray:
        """(N) square root of the area of each box, in pixels."""
        sides: np.ndarray = np.sqrt((self.boxes[:, 2:] - self.boxes[:, :2]).prod(axis=1))
        return sides

    def side(self, quantile: float) -> float:
        """Returns a quantile of the objects' sides in pixels; 0 without objects."""
        return float(np.quantile(self.sides, quantile)) if len(self.boxes) else 0.0


def measure_objects(data: DataSet) -> ObjectFigures:
    """Measures the objects of a data set.

    Example:
        >>> record = ImageRecord("a.jpg", 1, 10, 10, [Annotation(0, (1, 1, 5, 5)), Annotation(0, (1, 1, 3, 3))])
        >>> figures = measure_objects(DataSet(["cat"], [record]))
        >>> figures.total, figures.most, figures.side(1.0)
        (2, 2, 4.0)
    """
    counts: Counter[int] = Counter()
    images_with: Counter[int] = Counter()
    forms: Counter[str] = Counter()
    per_image, rows, num_crowds = [], [], 0
    for record in data.images:
        objects = _objects(record)
        num_crowds += len(record.annotations) - len(objects)
        per_image.append(len(objects))
        categories = [found.category for found in objects]
        counts.update(categories)
        images_with.update(set(categories))
        forms.update(_form(found) for found in objects)
        rows += list(_boxes(record, objects))
    table = np.array(rows, dtype=np.float32).reshape(-1, 6)
    table = table[:: -(-len(table) // _NUM_BOXES) or 1]
    total = sum(per_image)
    drawn = _draw_sample(data.images)
    return ObjectFigures(
        classes=tuple(data.classes),
        counts=tuple(counts[index] for index in range(len(data.classes))),
        images_with=tuple(images_with[index] for index in range(len(data.classes))),
        num_crowds=num_crowds,
        per_image=tuple(per_image),
        boxes=table[:, :4],
        image_sizes=table[:, 4:],
        outlined=(total - forms["none"]) / total if total else 0.0,
        has_polygons_only=not forms["rle"],
        keypoints=tuple(data.keypoints) if forms.total() and _has_keypoints(data) else (),
        touching=drawn.share(drawn.touching),
        overlapping=drawn.share(drawn.overlapping),
        crowded=drawn.share(drawn.crowded),
        fill=float(np.median(drawn.fill)) if drawn.fill else 1.0,
    )


def _objects(record: ImageRecord) -> list[Annotation]:
    return [found for found in record.annotations if not found.crowd]


def _form(found: Annotation) -> str:
    if not found.segmentation:
        return "none"
    return "polygons" if isinstance(found.segmentation, list) else "rle"


def _has_keypoints(data: DataSet) -> bool:
    return any(any(found.keypoints or ()) for record in data.images for found in record.annotations)


def _boxes(record: ImageRecord, objects: Sequence[Annotation]) -> Iterator[tuple[float, ...]]:
    """Yields box, image width and image height of each object with an area inside its image."""
    width, height = record.width, record.height
    for found in objects:
        x0, y0, x1, y1 = found.box
        clipped = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
        if clipped[0] < clipped[2] and clipped[1] < clipped[3]:
            yield (*clipped, width, height)


@dataclass
class _Drawn:
    """Numbers of objects in a sample of images, and the share of its box that each mask fills."""

    num_objects: int = 0
    touching: int = 0
    overlapping: int = 0
    crowded: int = 0
    fill: list[float] = field(default_factory=list)

    def share(self, count: int) -> float:
        return count / self.num_objects if self.num_objects else 0.0


def _draw_sample(images: Sequence[ImageRecord]) -> _Drawn:
    """Draws the masks of some images, evenly chosen among those with objects."""
    with_objects = [
        record
        for record in images
        if record.height * record.width <= _MAX_DRAWN_PIXELS and 0 < len(record.annotations) <= _MAX_DRAWN_OBJECTS
    ]
    drawn = _Drawn()
    for record in with_objects[:: -(-len(with_objects) // _NUM_DRAWN) or 1]:
        _draw(record, drawn)
    return drawn


def _draw(record: ImageRecord, drawn: _Drawn) -> None:
    """Adds the objects of an image to the figures."""
    objects = _objects(record)
    boxes = np.array([found.box for found in objects], dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] -= boxes[:, :2]
    categories = np.array([found.category for found in objects])
    overlaps = pairwise_iou(boxes, boxes)
    same = (categories[:, None] == categories) & ~np.eye(len(objects), dtype=bool)
    drawn.num_objects += len(objects)
    drawn.crowded += int(((overlaps > _CROWDED) & same).any(axis=1).sum())
    # Each pixel holds the number of the last object drawn there.
    labels = np.zeros((record.height, record.width), np.int32)
    touching: set[int] = set()
    overlapping: set[int] = set()
    for number, (found, box) in enumerate(zip(objects, boxes, strict=True), start=1):
        if not found.segmentation:
            continue
        try:
            mask = decode_rle(segmentation_to_rle(found.segmentation, record.height, record.width)).astype(bool)
        except InputError:  # an outline that is too long; training reports it
            continue
        area = box[2] * box[3]
        if area > 0:
            drawn.fill.append(min(1.0, int(mask.sum()) / area))
        below = set(np.unique(labels[mask]).tolist()) - {0}
        if below:
            overlapping |= below | {number}
        labels[mask] = number
    for one, other in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])):
        meet = (one != other) & (one > 0) & (other > 0)
        touching |= set(one[meet].tolist()) | set(other[meet].tolist())
    drawn.overlapping += len(overlapping)
    drawn.touching += len(touching | overlapping)
