"""Anchors and input size that fit the objects of a data set.

A region proposal network finds what one of its anchors overlaps. The recall here is measured where the anchors are: on the grid of
each level of the pyramid, every box against the nearest anchor of every shape.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from maskrcnn_ext.data.check.view import DatasetView

STRIDES = (4, 8, 16, 32, 64)  # of p2 to p6
STOCK_SIZES = (32.0, 64.0, 128.0, 256.0, 512.0)
STOCK_RATIOS = (0.5, 1.0, 2.0)
STOCK_INPUT = (800, 1333)  # shorter side, longest side
# Narrower than this many steps of its level's grid, an anchor misses what lies between two steps.
_MIN_STEPS = 1.5
_ROUNDS = 30  # of Lloyd's algorithm, far more than five clusters on a line need
_CANDIDATES = 24  # sizes that a level's anchor is tried at
_SMALL = 32.0  # pixels; COCO's bound of small objects, the hardest ones
_SMALL_SHARE = 0.25  # of the objects may be smaller than that before images are enlarged
_MAX_ENLARGEMENT = 3.0  # more costs time and shows nothing new
_MIN_IOU = 0.5
_MIN_SPREAD = 1.25  # from one ratio to the next: closer ones are the same anchor twice
_STEP = 1.25  # of enlarging further, where Detectron2's own input size finds more
_SLACK = 0.01  # of recall, that counts as the same
_MULTIPLE = 32  # input sizes are multiples of the last backbone level's stride
_NUM_BOXES = 10_000  # are enough to measure on


@dataclass(frozen=True, slots=True)
class AnchorAdvice:
    """What fits a data set.

    Attributes:
        sizes: an anchor size a level, p2 to p6: the square root of its area in pixels of the network's input.
        ratios: height over width.
        short_edge: the shorter side of the network's input, in pixels.
        max_size: the longest side of the input.
        small: share of objects that are below 32 x 32 pixels there.
        recall: share of boxes with an anchor of IoU above 0.5 at that input size.
        recall_stock: the same for Detectron2's anchors.
        recall_stock_input: for Detectron2's anchors at its own input size of 800 pixels.
    """

    sizes: tuple[float, ...]
    ratios: tuple[float, ...]
    short_edge: int
    max_size: int
    small: float
    recall: float
    recall_stock: float
    recall_stock_input: float

    @property
    def anchor_overrides(self) -> str:
        sizes = ",".join(f"[{size:g}]" for size in self.sizes)
        ratios = ",".join(f"{ratio:g}" for ratio in self.ratios)
        generator = "model.proposal_generator.anchor_generator"
        return f"{generator}.sizes=[{sizes}] {generator}.aspect_ratios=[{ratios}]"

    @property
    def input_overrides(self) -> str:
        """For configs whose first augmentation is ResizeShortestEdge, as of all that begin with common/data/coco.py."""
        train, test = (f"dataloader.{split}.mapper.augmentations.0" for split in ("train", "test"))
        return (
            f"{train}.short_edge_length=[{self.short_edge}] {train}.max_size={self.max_size} "
            f"{test}.short_edge_length={self.short_edge} {test}.max_size={self.max_size}"
        )


def suggest_anchors(view: DatasetView) -> AnchorAdvice | None:
    """Returns what fits a data set; None where it has no box in an image of known size."""
    boxes, images = _boxes(view)
    if not len(boxes):
        return None
    stock = boxes * _scales(images, *STOCK_INPUT)[:, None]
    recall_stock_input = recall_of(stock, STOCK_SIZES, STOCK_RATIOS)
    short, long = float(np.median(images.min(axis=1))), float(np.median(images.max(axis=1)))
    # The images' own size; larger where many objects would be small, smaller where it is beyond the usual longest side.
    object_side = float(np.quantile(np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1)), _SMALL_SHARE))
    largest = min(_MAX_ENLARGEMENT, STOCK_INPUT[1] / long)
    scale = min(max(1.0, _SMALL / object_side), largest)
    for factor in (scale, min(_STEP * scale, largest), largest):
        short_edge = max(_MULTIPLE, round(short * factor / _MULTIPLE) * _MULTIPLE)
        max_size = max(short_edge, math.ceil(short_edge * long / short))
        advice = _fit(boxes * _scales(images, short_edge, max_size)[:, None], short_edge, max_size, recall_stock_input)
        if advice.recall >= recall_stock_input - _SLACK:
            return advice
    return _fit(stock, *STOCK_INPUT, recall_stock_input)


def _fit(scaled: np.ndarray, short_edge: int, max_size: int, recall_stock_input: float) -> AnchorAdvice:
    """The anchors for boxes (N, 4) in pixels of the network's input."""
    sides = scaled[:, 2:] - scaled[:, :2]
    ratios = _ratios(sides[:, 1] / sides[:, 0])
    sizes = _sizes(scaled, ratios)
    recall, recall_stock = recall_of(scaled, sizes, ratios), recall_of(scaled, STOCK_SIZES, STOCK_RATIOS)
    if recall <= recall_stock:
        sizes, ratios, recall = STOCK_SIZES, STOCK_RATIOS, recall_stock
    small = float((sides.prod(axis=1) < _SMALL**2).mean())
    return AnchorAdvice(sizes, ratios, short_edge, max_size, small, recall, recall_stock, recall_stock_input)


def _boxes(view: DatasetView) -> tuple[np.ndarray, np.ndarray]:
    """Returns boxes (N, 4) and the (width, height) of each one's image, (N, 2); crowds are left out."""
    rows = []
    for found in view.objects:
        box, image = found.box, found.image
        if box is None or image is None or image.width is None or image.height is None or found.crowd:
            continue
        clipped = (max(box[0], 0), max(box[1], 0), min(box[2], image.width), min(box[3], image.height))
        if clipped[0] < clipped[2] and clipped[1] < clipped[3]:
            rows.append((*clipped, image.width, image.height))
    table = np.array(rows, dtype=np.float64).reshape(-1, 6)
    table = table[:: math.ceil(len(table) / _NUM_BOXES) or 1]
    return table[:, :4], table[:, 4:]


def _scales(images: np.ndarray, short_edge: int, max_size: int) -> np.ndarray:
    """What ResizeShortestEdge scales images of (N, 2) sides by."""
    return np.minimum(short_edge / images.min(axis=1), max_size / images.max(axis=1))


def _sizes(boxes: np.ndarray, ratios: tuple[float, ...]) -> tuple[float, ...]:
    """The sizes, growing from level to level, with the highest recall and mean of every box's best IoU.

    Five clusters of the boxes' own sizes are the start. From there each level in turn takes the size that helps most while the others
    stay, until nothing helps: many small objects need their size on a fine grid, whatever the number of their cluster.
    """
    roots = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
    start = _clusters(np.log(roots))
    tried = np.unique(np.append(np.quantile(roots, np.linspace(0.01, 0.99, _CANDIDATES)), start).round())
    floors = [stride * _MIN_STEPS for stride in STRIDES]
    options = [tried[tried >= floor] if (tried >= floor).any() else np.array([floor]) for floor in floors]
    overlaps = [np.stack([_overlaps(boxes, s, t, ratios) for s in o]) for o, t in zip(options, STRIDES, strict=True)]
    chosen = [int(np.abs(o - size).argmin()) for o, size in zip(options, start, strict=True)]
    score = 0.0
    for _ in range(_ROUNDS):
        for level in range(len(STRIDES)):
            rest = np.max([overlaps[i][chosen[i]] for i in range(len(STRIDES)) if i != level], axis=0)
            best = np.maximum(overlaps[level], rest)
            scores = (best > _MIN_IOU).mean(axis=1) + best.mean(axis=1)
            low = options[level - 1][chosen[level - 1]] if level else 0.0
            high = options[level + 1][chosen[level + 1]] if level + 1 < len(STRIDES) else math.inf
            scores[(options[level] < low) | (options[level] > high)] = -1.0
            if scores.max() > scores[chosen[level]]:
                chosen[level] = int(scores.argmax())
        if scores.max() <= score:
            break
        score = scores.max()
    return tuple(float(o[index]) for o, index in zip(options, chosen, strict=True))


def _clusters(values: np.ndarray) -> np.ndarray:
    """Five cluster centres of logarithms (N,), sorted, as sizes."""
    centres = np.quantile(values, (np.arange(len(STRIDES)) + 0.5) / len(STRIDES))
    for _ in range(_ROUNDS):
        nearest = np.abs(values[:, None] - centres).argmin(axis=1)
        centres = np.array([values[nearest == i].mean() if (nearest == i).any() else c for i, c in enumerate(centres)])
    return np.exp(np.sort(centres))


def _ratios(ratios: np.ndarray) -> tuple[float, ...]:
    """The middles of the three thirds of all ratios: three, so that the head's `num_anchors` stays as it is; and no two alike."""
    low, middle, high = np.exp(np.quantile(np.log(ratios), (1 / 6, 1 / 2, 5 / 6)))
    spread = min(low, middle / _MIN_SPREAD), middle, max(high, middle * _MIN_SPREAD)
    return tuple(float(f"{ratio:.2g}") for ratio in spread)


def recall_of(boxes: np.ndarray, sizes: tuple[float, ...], ratios: tuple[float, ...]) -> float:
    """Returns the share of boxes (N, 4) that an anchor overlaps by an IoU above 0.5, each size on its level's grid."""
    overlaps = [_overlaps(boxes, size, stride, ratios) for size, stride in zip(sizes, STRIDES, strict=True)]
    return float((np.max(overlaps, axis=0) > _MIN_IOU).mean())


def _overlaps(boxes: np.ndarray, size: float, stride: int, ratios: tuple[float, ...]) -> np.ndarray:
    """Returns the best IoU (N,) of each box with the anchors of one size on a grid."""
    centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    nearest = np.round(centres / stride) * stride
    best = np.zeros(len(boxes))
    for ratio in ratios:
        half = np.array([size / math.sqrt(ratio), size * math.sqrt(ratio)]) / 2
        low, high = np.maximum(nearest - half, boxes[:, :2]), np.minimum(nearest + half, boxes[:, 2:])
        shared = np.clip(high - low, 0, None).prod(axis=1)
        best = np.maximum(best, shared / (sides.prod(axis=1) + 4 * half.prod() - shared))
    return best
