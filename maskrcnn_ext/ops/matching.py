"""Matches anchors to ground-truth boxes without the matrix of all overlaps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# Overlaps in one piece of the matrix: as many as fit into the cache of a CPU core, or keep a GPU busy.
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
    """Returns the ground truth that each box overlaps most, and a label by that overlap (Faster R-CNN, arXiv:1506.01497, section 3.1.2).

    Intersection over union (IoU) is computed piece by piece, so that the memory does not grow with the number of boxes. With
    ``allow_low_quality_matches`` and more than one piece, the host synchronises with a GPU once.

    Args:
        truth: (M, 4) as x0, y0, x1, y1.
        boxes: (N, 4), anchors or proposals, on the same device.
        thresholds: ascending, above 0.
        labels: one more than thresholds: the label below the first threshold, between two, and from the last on.
        allow_low_quality_matches: whether the boxes with the largest overlap of a ground truth, even 0, also get the label 1.
        piece: overlaps computed at a time; None chooses it by the device.

    Returns:
        (N,) int64, the ground truth of the largest overlap (the first of equal ones; 0 without ground truth); (N,) int8, the labels.
    """
    matches = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
    matched = torch.full((len(boxes),), labels[0], dtype=torch.int8, device=boxes.device)
    if not len(boxes) or not len(truth):
        return matches, matched
    step = max(1, (piece or _PIECE.get(boxes.device.type, _PIECE["cuda"])) // len(truth))
    sides, truth_sides = _sides(boxes), _sides(truth)
    # All pieces use the same memory; otherwise the C library may keep the memory of several.
    memory = boxes.new_empty(3, len(truth) * min(step, len(boxes)))
    # Ground truth counted down: the maximum among equal overlaps is the first.
    count_down = torch.arange(len(truth), 0, -1, device=boxes.device, dtype=boxes.dtype)[:, None]
    largest, of_truth = [], []
    for start in range(0, len(boxes), step):
        overlaps = _iou(truth_sides, sides[:, start : start + step], memory)
        if allow_low_quality_matches:
            of_truth.append(overlaps.amax(dim=1))
        largest.append(overlaps.amax(dim=0))
        # The index of max(), by vectorised operations.
        from_last = overlaps.eq_(largest[-1]).mul_(count_down).amax(dim=0)
        matches[start : start + step] = from_last.neg_().add_(len(truth))
    quality = torch.cat(largest)
    for threshold, label in zip(thresholds, labels[1:], strict=True):
        matched.masked_fill_(quality >= threshold, label)
    if allow_low_quality_matches:
        _label_best(matched, truth_sides, sides, torch.stack(of_truth), step, memory)
    return matches, matched


def _label_best(labels: Tensor, truth: Tensor, boxes: Tensor, of_pieces: Tensor, step: int, memory: Tensor) -> None:
    """Sets the label 1 for the boxes with the largest overlap of each ground truth, ties included.

    Args:
        labels: (N,) int8, changed in place.
        truth: (5, M), from :func:`_sides`.
        boxes: (5, N), from :func:`_sides`.
        of_pieces: (P, M), the largest overlap of each ground truth in each piece.
        step: boxes per piece.
        memory: buffer for :func:`_iou`.
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
    """Returns (5, N): x0, y0, x1, y1 and the area of boxes (N, 4)."""
    x0, y0, x1, y1 = boxes.unbind(dim=1)
    return torch.stack([x0, y0, x1, y1, (x1 - x0) * (y1 - y0)])


def _iou(truth: Tensor, boxes: Tensor, memory: Tensor) -> Tensor:
    """Returns the IoU (M, N) of (5, M) and (5, N) from :func:`_sides`, computed in `memory` (3, M * N or more).

    It rounds as Detectron2's pairwise_iou does.
    """
    shape = truth.shape[1], boxes.shape[1]
    one, two, three = (part[: shape[0] * shape[1]].view(shape) for part in memory)
    x0, y0, x1, y1, area = truth[:, :, None]
    width = torch.minimum(x1, boxes[2], out=one).sub_(torch.maximum(x0, boxes[0], out=two)).clamp_(min=0)
    height = torch.minimum(y1, boxes[3], out=two).sub_(torch.maximum(y0, boxes[1], out=three)).clamp_(min=0)
    intersection = width.mul_(height)
    union = torch.add(area, boxes[4], out=two).sub_(intersection)
    return intersection.div_(union).nan_to_num_(nan=0.0)  # two boxes without an area
