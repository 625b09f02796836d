"""Suggests anchors and an input size that fit the objects of a dataset.

A region proposal network finds the objects that one of its anchors overlaps. Recall is therefore measured on the grid of each pyramid
level: every box is compared with the nearest anchor of every shape.
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
# An anchor narrower than this many steps of its level's grid misses objects between two steps.
_MIN_STEPS = 1.5
_ROUNDS = 30  # iterations of Lloyd's algorithm, far more than five clusters of numbers need
_CANDIDATES = 24  # sizes that are tried for each level
_SMALL = 32.0  # pixels; COCO's limit of small objects, which are the hardest
_SMALL_SHARE = 0.25  # share of objects that may be smaller before images are enlarged
_MAX_ENLARGEMENT = 3.0  # more costs time and adds no information
_MIN_IOU = 0.5
_MIN_SPREAD = 1.25  # factor between two ratios; closer ratios are almost the same anchor
_STEP = 1.25  # factor of a further enlargement if Detectron2's input size has a higher recall
_SLACK = 0.01  # differences of recall that count as equal
_MULTIPLE = 32  # input sizes are multiples of this, the stride of the last backbone level
_NUM_BOXES = 10_000  # measured at most, which is enough


@dataclass(frozen=True, slots=True)
class AnchorAdvice:
    """Anchors and an input size that fit a dataset.

    Attributes:
        sizes: the anchor size of each level, p2 to p6: square root of the area in pixels of the network's input.
        ratios: height over width.
        short_edge: shorter side of the network's input in pixels.
        max_size: longest side of the input in pixels.
        small: share of objects smaller than 32 x 32 pixels at that input size.
        recall: share of boxes that overlap an anchor by an IoU above 0.5 at that input size.
        recall_stock: recall of Detectron2's anchors at that input size.
        recall_stock_input: recall of Detectron2's anchors at its input size of 800 pixels.
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
        """Overrides of a config with an FPN."""
        sizes = ",".join(f"[{size:g}]" for size in self.sizes)
        ratios = ",".join(f"{ratio:g}" for ratio in self.ratios)
        generator = "model.proposal_generator.anchor_generator"
        return f"{generator}.sizes=[{sizes}] {generator}.aspect_ratios=[{ratios}]"

    @property
    def input_overrides(self) -> str:
        """Overrides of a config whose first augmentation is ResizeShortestEdge, such as all configs that use common/data/coco.py."""
        train, test = (f"dataloader.{split}.mapper.augmentations.0" for split in ("train", "test"))
        return (
            f"{train}.short_edge_length=[{self.short_edge}] {train}.max_size={self.max_size} "
            f"{test}.short_edge_length={self.short_edge} {test}.max_size={self.max_size}"
        )


def suggest_anchors(view: DatasetView) -> AnchorAdvice | None:
    """Returns anchors and an input size that fit a dataset; None without a box in an image of known size.

    Example:
        >>> from pathlib import Path
        >>> from maskrcnn_ext.data.check import view_dataset
        >>> boxes = [{"id": i, "image_id": 1, "category_id": 1, "bbox": [9 * i, 9 * i, 64, 64]} for i in range(9)]
        >>> image = {"id": 1, "file_name": "a.jpg", "height": 512, "width": 640}
        >>> data = {"images": [image], "annotations": boxes, "categories": [{"id": 1, "name": "cell"}]}
        >>> advice = suggest_anchors(view_dataset(data, Path(), "train"))
        >>> advice.short_edge, advice.recall
        (512, 1.0)
    """
    boxes, images = _boxes_and_image_sizes(view)
    if not len(boxes):
        return None
    stock = boxes * resize_scales(images, *STOCK_INPUT)[:, None]
    recall_stock_input = anchor_recall(stock, STOCK_SIZES, STOCK_RATIOS)
    short, long = float(np.median(images.min(axis=1))), float(np.median(images.max(axis=1)))
    # Start with the images' own size. Enlarge it if many objects would be small, and reduce it to the usual longest side.
    object_side = float(np.quantile(np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1)), _SMALL_SHARE))
    largest = min(_MAX_ENLARGEMENT, STOCK_INPUT[1] / long)
    scale = min(max(1.0, _SMALL / object_side), largest)
    for factor in (scale, min(_STEP * scale, largest), largest):
        short_edge = max(_MULTIPLE, round(short * factor / _MULTIPLE) * _MULTIPLE)
        max_size = max(short_edge, math.ceil(short_edge * long / short))
        advice = _fit_anchors(
            boxes * resize_scales(images, short_edge, max_size)[:, None], short_edge, max_size, recall_stock_input
        )
        if advice.recall >= recall_stock_input - _SLACK:
            return advice
    return _fit_anchors(stock, *STOCK_INPUT, recall_stock_input)


def _fit_anchors(scaled: np.ndarray, short_edge: int, max_size: int, recall_stock_input: float) -> AnchorAdvice:
    """Returns the anchors for boxes (N, 4) in pixels of the network's input."""
    sides = scaled[:, 2:] - scaled[:, :2]
    sizes, ratios = fit_anchors(scaled)
    recall, recall_stock = anchor_recall(scaled, sizes, ratios), anchor_recall(scaled, STOCK_SIZES, STOCK_RATIOS)
    if recall <= recall_stock:
        sizes, ratios, recall = STOCK_SIZES, STOCK_RATIOS, recall_stock
    small = float((sides.prod(axis=1) < _SMALL**2).mean())
    return AnchorAdvice(sizes, ratios, short_edge, max_size, small, recall, recall_stock, recall_stock_input)


def fit_anchors(boxes: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns the anchor sizes of the levels p2 to p6 and the aspect ratios, height over width, that fit boxes best.

    Args:
        boxes: (N, 4) in pixels of the network's input, N at least 1.

    Example:
        >>> fit_anchors(np.array([[0.0, 0.0, 64.0, 64.0]]))[1]
        (0.8, 1.0, 1.2)
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    ratios = _fit_ratios(sides[:, 1] / sides[:, 0])
    return _fit_sizes(boxes, ratios), ratios


def _boxes_and_image_sizes(view: DatasetView) -> tuple[np.ndarray, np.ndarray]:
    """Returns boxes (N, 4) without crowds, and the width and height of each box's image, (N, 2)."""
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


def resize_scales(images: np.ndarray, short_edge: int, max_size: int) -> np.ndarray:
    """Returns the factors (N) by which ResizeShortestEdge scales images of (N, 2) sides."""
    return np.minimum(short_edge / images.min(axis=1), max_size / images.max(axis=1))


def _fit_sizes(boxes: np.ndarray, ratios: tuple[float, ...]) -> tuple[float, ...]:
    """Returns sizes, ascending by level, that maximise the sum of recall and the mean of each box's best IoU.

    The search starts from five clusters of the boxes' sizes. Each level in turn takes the best size while the others stay fixed, until
    nothing improves. The clusters alone would not do: small objects need an anchor on a fine grid, which may not be that of their cluster.
    """
    roots = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
    start = _clusters(np.log(roots))
    tried = np.unique(np.append(np.quantile(roots, np.linspace(0.01, 0.99, _CANDIDATES)), start).round())
    floors = [stride * _MIN_STEPS for stride in STRIDES]
    options = [tried[tried >= floor] if (tried >= floor).any() else np.array([floor]) for floor in floors]
    overlaps = [np.stack([_best_iou(boxes, s, t, ratios) for s in o]) for o, t in zip(options, STRIDES, strict=True)]
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
    """Returns the centres of five clusters of sizes, ascending; `values` (N,) are their logarithms."""
    centres = np.quantile(values, (np.arange(len(STRIDES)) + 0.5) / len(STRIDES))
    for _ in range(_ROUNDS):
        nearest = np.abs(values[:, None] - centres).argmin(axis=1)
        centres = np.array([values[nearest == i].mean() if (nearest == i).any() else c for i, c in enumerate(centres)])
    return np.exp(np.sort(centres))


def _fit_ratios(ratios: np.ndarray) -> tuple[float, ...]:
    """Returns the medians of the three thirds of all ratios, moved apart if they are close.

    They are three, so that the `num_anchors` of the head need not change.
    """
    low, middle, high = np.exp(np.quantile(np.log(ratios), (1 / 6, 1 / 2, 5 / 6)))
    spread = min(low, middle / _MIN_SPREAD), middle, max(high, middle * _MIN_SPREAD)
    return tuple(float(f"{ratio:.2g}") for ratio in spread)


def anchor_recall(boxes: np.ndarray, sizes: tuple[float, ...], ratios: tuple[float, ...]) -> float:
    """Returns the share of boxes (N, 4) that an anchor overlaps by an IoU above 0.5; each size is on the grid of its level."""
    overlaps = [_best_iou(boxes, size, stride, ratios) for size, stride in zip(sizes, STRIDES, strict=True)]
    return float((np.max(overlaps, axis=0) > _MIN_IOU).mean())


def _best_iou(boxes: np.ndarray, size: float, stride: int, ratios: tuple[float, ...]) -> np.ndarray:
    """Returns the highest IoU (N,) of each box with the anchors of one size on the grid of one level."""
    centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    nearest = np.round(centres / stride) * stride
    best = np.zeros(len(boxes))
    for ratio in ratios:
        half = np.array([size / math.sqrt(ratio), size * math.sqrt(ratio)]) / 2
        low, high = np.maximum(nearest - half, boxes[:, :2]), np.minimum(nearest + half, boxes[:, 2:])
        shared = np.clip(high - low, 0, None).prod(axis=1)
        best = np.maximum(best, shared / (sides.prod(axis=1) + 4 * half.prod() - shared))
    return best
