"""Which ground-truth box each anchor belongs to, without the matrix of all overlaps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# Overlaps in one piece of the matrix: what stays in a core's cache, and what fills a GPU.
_PIECE = {"cpu": 2**17, "cuda": 2**23}


def match_boxes(
    truth: Tensor,
    boxes: Tensor,
    thresholds: Sequence[float],
    labels: Sequence[int],
    *,
    allow_low_quality_matches: bool = False,
    piece: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Labels boxes by the ground truth that they overlap most (Faster R-CNN, arXiv:1506.01497, section 3.1.2).

    Intersection over union is computed for some boxes at a time, so that the memory does not grow with their number. With
    ``allow_low_quality_matches`` a host waits for a GPU once, where there is more than one such piece.

    Args:
        truth: (M, 4) as x0, y0, x1, y1.
        boxes: (N, 4), anchors or proposals, on the same device.
        thresholds: ascending, above 0.
        labels: one more than there are thresholds: what a box is below the first, from each to the next, and from the last on.
        allow_low_quality_matches: the boxes of every ground truth's largest overlap, 0 included, get the label 1 as well.
        piece: overlaps that are computed at a time; None for what suits the device.

    Returns:
        (N,) int64, the ground truth of the largest overlap, the first of equal ones, and 0 where there is none; (N,) int8, the labels.
    """
    matches = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
    matched = torch.full((len(boxes),), labels[0], dtype=torch.int8, device=boxes.device)
    if not len(boxes) or not len(truth):
        return matches, matched
    step = max(1, (piece or _PIECE.get(boxes.device.type, _PIECE["cuda"])) // len(truth))
    sides, truth_sides = _sides(boxes), _sides(truth)
    # Overlaps of every piece are in the same memory: of pieces that come and go, the C library may keep one beside the other.
    memory = boxes.new_empty(3, len(truth) * min(step, len(boxes)))
    # Ground truth counted from the last: the largest number among equal overlaps is the first.
    count_down = torch.arange(len(truth), 0, -1, device=boxes.device, dtype=boxes.dtype)[:, None]
    largest, of_truth = [], []
    for start in range(0, len(boxes), step):
        overlaps = _iou(truth_sides, sides[:, start : start + step], memory)
        if allow_low_quality_matches:
            of_truth.append(overlaps.amax(dim=1))
        largest.append(overlaps.amax(dim=0))
        # The index that max() gives, by operations that are vectorised.
        from_last = overlaps.eq_(largest[-1]).mul_(count_down).amax(dim=0)
        matches[start : start + step] = from_last.neg_().add_(len(truth))
    quality = torch.cat(largest)
    for threshold, label in zip(thresholds, labels[1:], strict=True):
        matched.masked_fill_(quality >= threshold, label)
    if allow_low_quality_matches:
        _label_best(matched, truth_sides, sides, torch.stack(of_truth), step, memory)
    return matches, matched


def _label_best(labels: Tensor, truth: Tensor, boxes: Tensor, of_pieces: Tensor, step: int, memory: Tensor) -> None:
    """Gives the label 1 to the boxes of every ground truth's largest overlap, ties included.

    Args:
        labels: (N,) int8, changed in place.
        truth: (5, M), of :func:`_sides`.
        boxes: (5, N), as well.
        of_pieces: (P, M), every ground truth's largest overlap in each piece.
        step: boxes in a piece.
        memory: for :func:`_iou`.
    """
    best = of_pieces.amax(dim=0)
    every = torch.arange(len(best))
    holds = (of_pieces == best).cpu() if len(of_pieces) > 1 else None
    for number in range(len(of_pieces)):
        rows = (every if holds is None else every[holds[number]]).to(labels.device)
        if len(rows):
            piece = slice(number * step, (number + 1) * step)
            is_best = _iou(truth[:, rows], boxes[:, piece], memory).eq_(best[rows, None]).amax(dim=0)
            labels[piece].masked_fill_(is_best.bool(), 1)


def _sides(boxes: Tensor) -> Tensor:
    """(N, 4) to (5, N): x0, y0, x1, y1 and the area."""
    x0, y0, x1, y1 = boxes.unbind(dim=1)
    return torch.stack([x0, y0, x1, y1, (x1 - x0) * (y1 - y0)])


def _iou(truth: Tensor, boxes: Tensor, memory: Tensor) -> Tensor:
    """(5, M) and (5, N) of :func:`_sides` to (M, N), 0 where nothing overlaps, in `memory` (3, M * N or more).

    The roundings are those of Detectron2's pairwise_iou.
    """
    shape = truth.shape[1], boxes.shape[1]
    one, two, three = (part[: shape[0] * shape[1]].view(shape) for part in memory)
    x0, y0, x1, y1, area = truth[:, :, None]
    width = torch.minimum(x1, boxes[2], out=one).sub_(torch.maximum(x0, boxes[0], out=two)).clamp_(min=0)
    height = torch.minimum(y1, boxes[3], out=two).sub_(torch.maximum(y0, boxes[1], out=three)).clamp_(min=0)
    intersection = width.mul_(height)
    union = torch.add(area, boxes[4], out=two).sub_(intersection)
    return intersection.div_(union).nan_to_num_(nan=0.0)  # two boxes without an area
