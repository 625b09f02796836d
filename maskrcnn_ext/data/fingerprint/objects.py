"""Measures the objects of a data set: classes, numbers, sizes, and how they overlap."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from maskrcnn_ext.data.fingerprint.adjacency import measure_adjacency
from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord
from maskrcnn_ext.ops.rle import pairwise_iou

_NUM_BOXES = 10_000  # kept at most
_NUM_COMPARED = 200  # images whose boxes are compared
_COMPARED_OBJECTS = 400  # of an image, each with all others of it
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
        crowded: share of objects whose box overlaps a box of the same class by an IoU above 0.5; of a sample of images.
        num_drawn: number of masks in a sample of images; 0 if no image of the data could be drawn in little time.
        touching: share of these masks that touch or overlap another.
        overlapping: share of these masks that overlap another.
        fill: median share of its box that such a mask fills.
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
    crowded: float = 0.0
    num_drawn: int = 0
    touching: float = 0.0
    overlapping: float = 0.0
    fill: float = 0.0

    @property
    def total(self) -> int:
        """Number of objects."""
        return sum(self.counts)

    @property
    def num_labelled(self) -> int:
        """Number of images with objects: Detectron2 trains on no others."""
        return sum(count > 0 for count in self.per_image)

    @property
    def mean_labelled(self) -> float:
        """Mean number of objects of an image with objects; 0 without any."""
        return self.total / max(1, self.num_labelled)

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

    def narrow_side(self, quantile: float) -> float:
        """Returns a quantile of the boxes' shorter sides in pixels; 0 without objects."""
        sides = self.boxes[:, 2:] - self.boxes[:, :2]
        return float(np.quantile(sides.min(axis=1), quantile)) if len(self.boxes) else 0.0


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
    adjacency = measure_adjacency(data.images)
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
        crowded=_crowded_share(data.images),
        num_drawn=adjacency.num_masks,
        touching=adjacency.touching,
        overlapping=adjacency.overlapping,
        fill=adjacency.fill,
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


def _crowded_share(images: Sequence[ImageRecord]) -> float:
    """Returns the share of crowded objects, of images that are evenly chosen among those with objects."""
    with_objects = [objects for objects in map(_objects, images) if objects]
    crowded = [_crowded(objects) for objects in with_objects[:: -(-len(with_objects) // _NUM_COMPARED) or 1]]
    return float(np.concatenate(crowded).mean()) if crowded else 0.0


def _crowded(objects: Sequence[Annotation]) -> np.ndarray:
    """Returns whether each of some objects of an image, evenly chosen, is crowded by any other one."""
    boxes = np.array([found.box for found in objects], dtype=np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    categories = np.array([found.category for found in objects])
    chosen = np.arange(0, len(objects), -(-len(objects) // _COMPARED_OBJECTS))
    others = (categories[chosen, None] == categories) & (chosen[:, None] != np.arange(len(objects)))
    crowded: np.ndarray = ((pairwise_iou(boxes[chosen], boxes) > _CROWDED) & others).any(axis=1)
    return crowded
