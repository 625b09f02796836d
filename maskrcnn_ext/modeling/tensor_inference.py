"""Detectron2's selection of proposals and detections, as functions of tensors that a tracer or a CUDA graph can record.

Detectron2 selects boxes image by image, with Python loops and branches that depend on values. The functions here compute the same with
tensor operations alone, in two layouts:

* One list: the RoIs (R, 5) of all images, image index first. R depends on what is found. Exported models use this layout, because
  every runtime has non-maximum suppression for a list.
* Padded: (N, P, ...), a fixed number of boxes for each of N images; a score of -inf marks the places that are empty. CUDA graphs need
  this layout: every shape is known before the first kernel runs, so the GPU never synchronises with the host.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from typing import Any

import torch
import torchvision
from detectron2.modeling.roi_heads import CascadeROIHeads, FastRCNNOutputLayers, Res5ROIHeads, ROIHeads
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_ext.modeling.mmdet_parts import MeanLogitCascadeROIHeads, mean_logit_probs, select_box
from maskrcnn_ext.ops.sorted_nms import sorted_nms

# A number: a Python one, or what a tracer uses instead.
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


# One list -------------------------------------------------------------------------------------------------------------------------


def select_proposals(
    levels: Iterable[tuple[Tensor, Tensor]],
    size: Size,
    num_images: Number,
    *,
    min_size: float,
    nms_threshold: float,
    limit: int,
) -> Tensor:
    """Computes what Detectron2's ``find_top_rpn_proposals`` does from decoded boxes on, as one list.

    Args:
        levels: boxes (N, K, 4) and logits (N, K) of each level; see :func:`decode_top_anchors`.
        size: of the images.
        num_images: N
        min_size: proposals are wider and higher than this, in pixels.
        nms_threshold: IoU above which a proposal suppresses a worse one of its level and image.
        limit: proposals of an image.

    Returns:
        RoIs (P, 5), image by image, by descending logit.
    """
    kept_rois, kept_logits = [], []
    for boxes, logits in levels:
        images = torch.arange(num_images, device=boxes.device)[:, None].expand(-1, boxes.shape[1])
        boxes, logits = boxes.flatten(0, 1), logits.flatten()
        rois = torch.cat([images.reshape(-1, 1), clip_boxes(boxes, image_window(size))], dim=1)
        valid = is_finite(boxes).all(dim=1) & _is_proposal(rois[:, 1:], logits, min_size)
        rois, logits = rois[valid], logits[valid]
        keep = nms(separate_groups(rois[:, 1:], rois[:, 0], size), logits, nms_threshold)
        kept_rois.append(rois[keep])
        kept_logits.append(logits[keep])
    rois = torch.cat(kept_rois)[torch.cat(kept_logits).argsort(descending=True)]
    return rois[first_of_each_image(rois[:, 0], limit, num_images)]


def select_detections(
    rois: Tensor,
    boxes: Tensor,
    probs: Tensor,
    size: Size,
    num_images: Number,
    *,
    score_threshold: float,
    nms_threshold: float,
    limit: int,
    class_agnostic: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Computes what Detectron2's ``fast_rcnn_inference`` does, on one list.

    Args:
        rois: (R, 5), the proposals, of which only the image index is used.
        boxes: (R, 4 * K) or (R, 4)
        probs: (R, K + 1), background last.
        size: of the images.
        num_images: how many there are.
        score_threshold: detections have a higher probability.
        nms_threshold: IoU above which a detection suppresses a worse one of its class and image.
        limit: detections of an image; below 0 for all.
        class_agnostic: whether detections of different classes suppress each other.

    Returns:
        RoIs (D, 5), scores (D,) and classes (D,) of D detections, image by image, by descending score.
    """
    finite = is_finite(boxes).all(dim=1) & is_finite(probs).all(dim=1)
    row, classes = _is_detection(probs, finite, score_threshold).nonzero().unbind(1)
    scores = probs[row, classes]
    boxes = clip_boxes(boxes.reshape(-1, int(boxes.shape[1]) // 4, 4), image_window(size))
    boxes = boxes[row, classes] if boxes.shape[1] > 1 else boxes[row, 0]
    images = rois[row, 0]
    groups = images if class_agnostic else images * (probs.shape[1] - 1) + classes
    keep = nms(separate_groups(boxes, groups, size), scores, nms_threshold)
    keep = keep[first_of_each_image(images[keep], limit, num_images)]
    return torch.cat([images[keep, None], boxes[keep]], dim=1), scores[keep], classes[keep]


def separate_groups(boxes: Tensor, groups: Tensor, size: Size) -> Tensor:
    """Moves groups of boxes apart, so that boxes of different groups do not overlap.

    The groups are placed on a square grid rather than in a row, because float32 is less exact the farther a box is from the origin.

    Args:
        boxes: (M, 4) within an image of `size`.
        groups: (M,) group numbers from 0, float or int.
        size: of the image.

    Example:
        >>> box = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
        >>> separate_groups(box.repeat(3, 1), torch.tensor([0, 1, 2]), (10, 10)).tolist()
        [[0.0, 0.0, 10.0, 10.0], [10.0, 0.0, 20.0, 10.0], [10.0, 10.0, 20.0, 20.0]]
    """
    groups = groups.to(boxes.dtype)
    # Group 0 is at the corner, 1 to 3 around it, 4 to 8 around these: the grid grows without knowing how many groups there are.
    ring = (groups + 0.5).sqrt().floor()
    rest = groups - ring * ring
    x = torch.minimum(ring, 2 * ring - rest) * size[1]
    y = torch.minimum(ring, rest) * size[0]
    return boxes + torch.stack([x, y, x, y], dim=1)


def nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Returns the indices of the boxes that non-maximum suppression keeps, by descending score.

    Args:
        boxes: (M, 4) with coordinates from 0 on.
        scores: (M,)
        threshold: IoU above which a box suppresses a worse one.
    """
    if not torch.compiler.is_compiling():
        return torchvision.ops.nms(boxes, scores, threshold)
    # Torchvision declares to torch.export that at least two boxes are kept: here are two that always are.
    dummies = boxes.new_tensor([[-2, -2, -1, -1], [-4, -4, -3, -3]])
    lowest = scores.new_full((2,), -torch.inf)
    keep = torchvision.ops.nms(torch.cat([boxes, dummies]), torch.cat([scores, lowest]), threshold)
    return keep[keep < boxes.shape[0]]


def first_of_each_image(images: Tensor, limit: int, num_images: Number) -> Tensor:
    """Returns the places of the first `limit` entries of each image in a list, image by image.

    Args:
        images: (M,) image indices, float or int.
        limit: entries of an image; below 0 for all.
        num_images: how many images there are.

    Example:
        >>> first_of_each_image(torch.tensor([1, 0, 1, 1, 0]), limit=2, num_images=2)
        tensor([1, 4, 0, 2])
    """
    images = images.long()
    if limit < 0:
        limit = images.shape[0]
    member = (images[:, None] == torch.arange(num_images, device=images.device)).long()
    rank = (member.cumsum(0) * member).sum(1) - 1
    kept = (rank < limit).nonzero()[:, 0]
    return kept[(images[kept] * limit + rank[kept]).argsort()]


# Padded ---------------------------------------------------------------------------------------------------------------------------


def select_proposals_padded(
    levels: Sequence[tuple[Tensor, Tensor]], sizes: Tensor, *, min_size: float, nms_threshold: float, limit: int
) -> tuple[Tensor, Tensor]:
    """Computes what Detectron2's ``find_top_rpn_proposals`` does from decoded boxes on, in fixed shapes.

    Args:
        levels: boxes (N, K, 4) and logits (N, K) of each of L levels, by descending logit; K may differ.
        sizes: (N, 2) float, height and width of each image.
        min_size: proposals are wider and higher than this, in pixels.
        nms_threshold: IoU above which a proposal suppresses a worse one of its level and image.
        limit: proposals of an image.

    Returns:
        Boxes (N, P, 4) by descending logit, with P the smaller of `limit` and L times the largest K; and which of them are
        proposals, (N, P).
    """
    largest = max(logits.shape[1] for _, logits in levels)
    padding = [largest - logits.shape[1] for _, logits in levels]
    boxes = torch.stack([F.pad(level, (0, 0, 0, more)) for (level, _), more in zip(levels, padding, strict=True)], 1)
    logits = torch.stack(
        [F.pad(level.float(), (0, more), value=-math.inf) for (_, level), more in zip(levels, padding, strict=True)], 1
    )
    boxes, finite = clip_padded(boxes, sizes)
    valid = finite & _is_proposal(boxes, logits, min_size)
    kept = sorted_nms(boxes.flatten(0, 1), valid.flatten(0, 1), nms_threshold).view_as(valid)
    logits = logits.masked_fill(~kept, -math.inf).flatten(1)
    logits, index = logits.topk(min(limit, logits.shape[1]), dim=1)
    return boxes.flatten(1, 2).gather(1, index[:, :, None].expand(-1, -1, 4)), logits > -math.inf


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
    """Computes what Detectron2's ``fast_rcnn_inference`` does, in fixed shapes.

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
    chosen = _is_detection(probs, valid, score_threshold).transpose(1, 2)  # (N, K, P)
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


# Rules that both layouts share ----------------------------------------------------------------------------------------------------


def _is_proposal(boxes: Tensor, logits: Tensor, min_size: float) -> Tensor:
    """Returns which clipped boxes (..., 4) are large enough and have a finite logit (...)."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return (sides > min_size).all(dim=-1) & is_finite(logits)  # a comparison with NaN is false


def _is_detection(probs: Tensor, valid: Tensor, score_threshold: float) -> Tensor:
    """Returns for which classes (..., K) a proposal is probable enough; `valid` (...) excludes proposals."""
    return (probs[..., :-1] > score_threshold) & valid[..., None]
