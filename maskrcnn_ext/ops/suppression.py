"""Choices among overlapping detections beyond non-maximum suppression by box IoU. All compute on the CPU: detections are few."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torchvision.ops import box_iou

from maskrcnn_ext.ops.rle import RLE, pairwise_iou


def diou_nms(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """Suppresses a box if a better one of its group has an IoU, less the distance of their centres, above the threshold.

    The distance is squared and relative to the squared diagonal of the smallest box around both (DIoU-NMS, arXiv:1911.08287, eq. 7 and
    section 3.4): boxes of two neighbours survive where those of one object do not.

    Args:
        boxes: (M, 4) x0, y0, x1, y1.
        scores: (M,)
        groups: (M,) int; boxes of different groups, such as classes, do not suppress each other.
        threshold: of IoU minus relative distance.

    Returns:
        Indices of the kept boxes by descending score.

    Example:
        >>> boxes = torch.tensor([[0.0, 0, 10, 10], [0, 4, 10, 14]])
        >>> diou_nms(boxes, torch.tensor([0.9, 0.8]), torch.zeros(2), threshold=0.4).tolist()
        [0, 1]
    """
    found, groups = boxes.cpu(), groups.cpu()
    centres = (found[:, :2] + found[:, 2:]) / 2

    def is_suppressed(best: int, rest: Tensor) -> Tensor:
        one, others = found[best], found[rest]
        around = torch.maximum(others[:, 2:], one[2:]) - torch.minimum(others[:, :2], one[:2])
        distance = (centres[rest] - centres[best]).square().sum(1) / around.square().sum(1).clamp(min=1e-12)
        return (box_iou(one[None], others)[0] - distance > threshold) & (groups[rest] == groups[best])

    return _greedy(scores, is_suppressed)


def soft_nms(
    boxes: Tensor, scores: Tensor, groups: Tensor, *, sigma: float, score_threshold: float, limit: int = -1
) -> tuple[Tensor, Tensor]:
    """Lowers the scores of boxes that overlap a better one, by exp(-IoU^2 / sigma), instead of dropping them.

    Soft-NMS with the Gaussian penalty (ICCV 2017, arXiv:1704.04503, eq. 3).

    Args:
        boxes: (M, 4) x0, y0, x1, y1.
        scores: (M,)
        groups: (M,) int; boxes of different groups, such as classes, do not affect each other.
        sigma: the smaller, the lower become the scores; the paper uses 0.5.
        score_threshold: kept boxes have a higher lowered score.
        limit: how many boxes to keep; below 0 for all.

    Returns:
        Indices of the kept boxes by descending lowered score, and these scores.

    Example:
        >>> boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10]])
        >>> keep, scores = soft_nms(boxes, torch.tensor([0.9, 0.8]), torch.zeros(2), sigma=0.5, score_threshold=0.0)
        >>> keep.tolist(), [round(score, 3) for score in scores.tolist()]
        ([0, 1], [0.9, 0.108])
    """
    found, current, groups = boxes.cpu(), scores.cpu().clone(), groups.cpu()
    left = (current > score_threshold).nonzero()[:, 0]
    kept: list[Tensor] = []
    while len(left) and len(kept) != limit:
        place = current[left].argmax()
        best = left[place]
        kept.append(best)
        left = torch.cat([left[:place], left[place + 1 :]])
        overlaps = box_iou(found[best][None], found[left])[0] * (groups[left] == groups[best])
        current[left] *= torch.exp(-overlaps.square() / sigma)
        left = left[current[left] > score_threshold]
    keep = torch.stack(kept) if kept else left
    return keep.to(boxes.device), current[keep].to(scores.device)


def mask_nms(rles: Sequence[RLE], boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """Suppresses a mask if a better one of its group has a mask IoU above the threshold.

    Args:
        rles: M masks of one image, compressed.
        boxes: (M, 4) x0, y0, x1, y1 around the masks; the IoU is computed where boxes overlap.
        scores: (M,)
        groups: (M,) int; masks of different groups, such as classes, do not suppress each other.
        threshold: of the IoU.

    Returns:
        Indices of the kept masks by descending score.
    """
    found, groups = boxes.cpu(), groups.cpu()

    def is_suppressed(best: int, rest: Tensor) -> Tensor:
        one, others = found[best], found[rest]
        shared = torch.minimum(others[:, 2:], one[2:]) > torch.maximum(others[:, :2], one[:2])
        near = (shared.all(dim=1) & (groups[rest] == groups[best])).nonzero()[:, 0]
        overlaps = torch.zeros(len(rest), dtype=torch.float64)
        overlaps[near] = torch.from_numpy(
            pairwise_iou([rles[best]], [rles[index] for index in rest[near].tolist()]).reshape(-1)
        )
        return overlaps > threshold

    return _greedy(scores, is_suppressed)


def maskness(probs: Tensor) -> Tensor:
    """Returns how sure masks are: the mean probability of their pixels of at least 0.5; 0 for a mask without such pixels.

    Args:
        probs: (R, S, S)

    Returns:
        (R,) float32.

    Example:
        >>> maskness(torch.tensor([[[0.9, 0.7], [0.1, 0.2]], [[0.4, 0.4], [0.1, 0.1]]]))
        tensor([0.8000, 0.0000])
    """
    probs = probs.float()
    inside = probs >= 0.5
    return (probs * inside).sum((1, 2)) / inside.sum((1, 2)).clamp(min=1)


def _greedy(scores: Tensor, is_suppressed: Callable[[int, Tensor], Tensor]) -> Tensor:
    """Returns the indices that greedy suppression keeps, by descending score.

    Args:
        scores: (M,)
        is_suppressed: returns for an index that is kept which of other indices, all of lower score, it suppresses.
    """
    left = scores.cpu().argsort(descending=True, stable=True)
    kept = []
    while len(left):
        best, rest = left[0], left[1:]
        kept.append(best)
        left = rest[~is_suppressed(int(best), rest)]
    return (torch.stack(kept) if kept else left).to(scores.device)
