"""Selects proposals and detections in fixed shapes: (N, P, ...), the same number of boxes for each of N images.

A score of -inf marks the places that are empty. CUDA graphs need this layout: every shape is known before the first kernel runs, so the GPU
never synchronises with the host.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from maskrcnn_ext.modeling.tensor_inference import clip_boxes, image_window, is_detection, is_finite, is_proposal
from maskrcnn_ext.ops.sorted_nms import sorted_nms


def select_proposals_padded(
    levels: Sequence[tuple[Tensor, Tensor]], sizes: Tensor, *, min_size: float, nms_threshold: float, limit: int
) -> tuple[Tensor, Tensor]:
    """Computes what Detectron2's ``find_top_rpn_proposals`` does from decoded boxes on.

    Args:
        levels: boxes (N, K, 4) and logits (N, K) of each of L levels, by descending logit; K may differ.
        sizes: (N, 2) float, height and width of each image.
        min_size: proposals are wider and higher than this, in pixels.
        nms_threshold: IoU above which a proposal suppresses a worse one of its level and image.
        limit: proposals of an image.

    Returns:
        Boxes (N, P, 4) and logits (N, P) by descending logit, -inf at places without a proposal. P is the smaller of `limit` and L times
        the largest K.
    """
    largest = max(logits.shape[1] for _, logits in levels)
    padding = [largest - logits.shape[1] for _, logits in levels]
    boxes = torch.stack([F.pad(level, (0, 0, 0, more)) for (level, _), more in zip(levels, padding, strict=True)], 1)
    logits = torch.stack(
        [F.pad(level.float(), (0, more), value=-math.inf) for (_, level), more in zip(levels, padding, strict=True)], 1
    )
    boxes, finite = clip_padded(boxes, sizes)
    valid = finite & is_proposal(boxes, logits, min_size)
    kept = sorted_nms(boxes.flatten(0, 1), valid.flatten(0, 1), nms_threshold).view_as(valid)
    logits = logits.masked_fill(~kept, -math.inf).flatten(1)
    logits, index = logits.topk(min(limit, logits.shape[1]), dim=1)
    return boxes.flatten(1, 2).gather(1, index[:, :, None].expand(-1, -1, 4)), logits


def select_detections_padded(
    boxes: Tensor,
    probs: Tensor,
    valid: Tensor,
    sizes: Tensor,
    *,
    score_threshold: float,
    nms_threshold: float,
    limit: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Computes what Detectron2's ``fast_rcnn_inference`` does.

    Args:
        boxes: (N, P, K, 4), or (N, P, 1, 4) if all classes share a box.
        probs: (N, P, K + 1), background last.
        valid: (N, P), which proposals count.
        sizes: (N, 2) float, height and width of each image.
        score_threshold: detections have a higher probability.
        nms_threshold: IoU above which a detection suppresses a worse one of its class and image.
        limit: detections of an image, 0 or more.

    Returns:
        Boxes (N, D, 4), scores (N, D), -inf at places without a detection, and classes (N, D), by descending score. D is the
        smaller of `limit` and P * K.
    """
    boxes, finite = clip_padded(boxes, sizes)
    valid = valid & finite.all(dim=2) & is_finite(probs).all(dim=2)
    chosen = is_detection(probs, valid, score_threshold).transpose(1, 2)  # (N, K, P)
    # Classes do not suppress each other: each is a separate list.
    scores, index = probs[:, :, :-1].transpose(1, 2).sort(dim=2, descending=True, stable=True)
    boxes = boxes.transpose(1, 2).expand(-1, scores.shape[1], -1, -1)
    boxes = boxes.gather(2, index[..., None].expand(-1, -1, -1, 4))
    chosen = chosen.gather(2, index)
    kept = sorted_nms(boxes.flatten(0, 1), chosen.flatten(0, 1), nms_threshold).view_as(chosen)
    scores = scores.masked_fill(~kept, -math.inf).flatten(1)
    scores, place = scores.topk(min(limit, scores.shape[1]), dim=1)
    boxes = boxes.flatten(1, 2).gather(1, place[:, :, None].expand(-1, -1, 4))
    return boxes, scores, place // valid.shape[1]


def clip_padded(boxes: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Clips the boxes of several images; boxes that are not finite become 0.

    Args:
        boxes: (N, A, B, 4)
        sizes: (N, 2) float, height and width of each image.

    Returns:
        Boxes (N, A, B, 4), and (N, A, B), which of them were finite.
    """
    finite = is_finite(boxes).all(dim=3)
    return clip_boxes(boxes.masked_fill(~finite[..., None], 0.0), image_window(sizes.T[:, :, None, None])), finite
