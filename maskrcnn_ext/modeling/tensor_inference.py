"""What Detectron2's inference computes between the parts of a model, as functions of tensors that a tracer or a CUDA graph can record.

Detectron2 selects boxes image by image, with Python loops and branches that depend on values. The functions here, in
:mod:`.list_selection` and in :mod:`.padded_selection` compute the same with tensor operations alone. The two modules have one layout each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
from detectron2.modeling.roi_heads import CascadeROIHeads, FastRCNNOutputLayers, Res5ROIHeads, ROIHeads
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_ext.modeling.mmdet_parts import MeanLogitCascadeROIHeads, mean_logit_probs, select_box

# A number: a Python one, or a tracer's symbol for one.
Number = Any
# (height, width) in pixels.
Size = Sequence[Number]
# (x0, y0, x1, y1) in pixels.
Window = tuple[Number, Number, Number, Number]


def flatten_anchors(maps: Tensor, values: int) -> Tensor:
    """Returns the predictions of a feature map with one row per anchor, in the order of Detectron2's anchor generators.

    Args:
        maps: (N, A * values, H, W) with A anchors at each position.
        values: predictions of an anchor: 1 for logits, 4 for deltas.

    Returns:
        (N, H * W * A, values)

    Example:
        >>> flatten_anchors(torch.zeros(2, 3 * 4, 5, 6), 4).shape
        torch.Size([2, 90, 4])
    """
    split = maps.reshape(maps.shape[0], -1, values, maps.shape[2], maps.shape[3])
    return split.permute(0, 3, 4, 1, 2).flatten(1, 3)


def decode_top_anchors(
    box_transform: Any, anchors: Tensor, logits: Tensor, deltas: Tensor, limit: int, *, fill: bool = False
) -> tuple[Tensor, Tensor]:
    """Decodes the boxes of the anchors of one level with the highest logits.

    Args:
        box_transform: a ``Box2BoxTransform``.
        anchors: (A, 4)
        logits: (N, A)
        deltas: (N, A, 4)
        limit: how many anchors to pick per image.
        fill: always return `limit` boxes, those beyond A with a logit of -inf. Tracers need this, as A varies with the image's size.

    Returns:
        Boxes (N, K, 4) and logits (N, K), by descending logit; K is `limit` if `fill`, else the smaller of `limit` and A.
    """
    count = logits.shape[1]
    if fill:
        best, index = F.pad(logits, (0, limit), value=-math.inf).topk(limit, dim=1)
        index = index % count
    else:
        best, index = logits.topk(min(limit, count), dim=1)
    rows = index + torch.arange(logits.shape[0], device=logits.device)[:, None] * count
    boxes = box_transform.apply_deltas(deltas.flatten(0, 1)[rows.flatten()], anchors[index.flatten()])
    return boxes.reshape(*index.shape, 4), best


def is_finite(values: Tensor) -> Tensor:
    """Returns which elements are neither NaN nor infinite, with operators that all runtimes have.

    Example:
        >>> is_finite(torch.tensor([1.0, torch.inf, torch.nan]))
        tensor([ True, False, False])
    """
    return values * 0 == 0


def image_window(size: Size) -> Window:
    """Returns the window that covers an image of (height, width).

    Example:
        >>> image_window((480, 640))
        (0, 0, 640, 480)
    """
    return (0, 0, size[1], size[0])


def clip_boxes(boxes: Tensor, window: Window, min_length: int = 0) -> Tensor:
    """Clips boxes to a window.

    Args:
        boxes: (..., 4)
        window: numbers, or tensors that broadcast to (...).
        min_length: width and height in pixels that a box keeps, wherever it is.

    Example:
        >>> clip_boxes(torch.tensor([[-5.0, 10.0, 700.0, 20.0]]), (0, 0, 640, 480))
        tensor([[  0.,  10., 640.,  20.]])
    """
    sides = []
    for axis in (0, 1):
        low, high = window[axis], window[axis + 2]
        sides.append(boxes[..., axis].clamp(min=low).clamp(max=high - min_length))
        sides.append(boxes[..., axis + 2].clamp(min=low + min_length).clamp(max=high))
    return torch.stack([sides[0], sides[2], sides[1], sides[3]], dim=-1)


def class_probs(predictor: FastRCNNOutputLayers, logits: Tensor) -> Tensor:
    """Returns the probabilities (R, K + 1) of K classes and the background, which is last."""
    sigmoid = getattr(predictor, "use_sigmoid_ce", False)  # Detectron2 v0.6 has softmax only
    return logits.sigmoid() if sigmoid else logits.softmax(dim=1)


def box_stages(heads: ROIHeads) -> list[tuple[nn.Module, FastRCNNOutputLayers]]:
    """Returns the pairs of box head and box predictor: one pair, or those of a cascade's stages.

    The head of ``Res5ROIHeads`` is the identity, as it pools its features behind res5.
    """
    if isinstance(heads, CascadeROIHeads):
        return list(zip(heads.box_head, heads.box_predictor, strict=True))
    if isinstance(heads, Res5ROIHeads):
        return [(nn.Identity(), heads.box_predictor)]
    return [(heads.box_head, heads.box_predictor)]


def classify_boxes(
    heads: ROIHeads, boxes: Tensor, pool: Callable[[Tensor], Tensor], clip: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Runs the box heads on proposals; each later stage of a cascade starts from the clipped boxes of the one before.

    Args:
        heads: see :func:`box_stages`.
        boxes: (R, 4), the proposals.
        pool: returns the RoI features of boxes (R, 4).
        clip: returns boxes (R, 4) clipped to their images.

    Returns:
        Boxes (R, 4 * K) or (R, 4) of the last stage, not clipped, and probabilities (R, K + 1), the mean of the stages.
    """
    stages = box_stages(heads)
    all_logits: list[Tensor] = []
    for stage, (head, predictor) in enumerate(stages):
        if stage:
            if boxes.shape[1] > 4:  # a box per class
                boxes = select_box(boxes, all_logits[-1][:, :-1].argmax(dim=1))
            boxes = clip(boxes)
        logits, deltas = predictor(head(pool(boxes)))
        all_logits.append(logits)
        boxes = predictor.box2box_transform.apply_deltas(deltas, boxes)
    if isinstance(heads, MeanLogitCascadeROIHeads):
        return boxes, mean_logit_probs(all_logits)
    probs = [class_probs(predictor, logits) for (_, predictor), logits in zip(stages, all_logits, strict=True)]
    return boxes, reduce(torch.add, probs) * (1.0 / len(probs)) if len(probs) > 1 else probs[0]


def is_proposal(boxes: Tensor, logits: Tensor, min_size: float) -> Tensor:
    """Returns which clipped boxes (..., 4) are large enough and have a finite logit (...)."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return (sides > min_size).all(dim=-1) & is_finite(logits)  # a comparison with NaN is false


def is_detection(probs: Tensor, valid: Tensor, score_threshold: float) -> Tensor:
    """Returns for which classes (..., K) a proposal is probable enough; `valid` (...) excludes proposals."""
    return (probs[..., :-1] > score_threshold) & valid[..., None]
