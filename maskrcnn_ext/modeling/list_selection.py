"""Selects proposals and detections in one list: the RoIs (R, 5) of all images, image index first.

R varies between images. Exported models use this layout, because every runtime has non-maximum suppression for a list.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torchvision
from torch import Tensor

from maskrcnn_ext.modeling.tensor_inference import (
    Number,
    Size,
    clip_boxes,
    image_window,
    is_detection,
    is_finite,
    is_proposal,
)


def select_proposals(
    levels: Iterable[tuple[Tensor, Tensor]],
    size: Size,
    num_images: Number,
    *,
    min_size: float,
    nms_threshold: float,
    limit: int,
) -> Tensor:
    """Computes what Detectron2's ``find_top_rpn_proposals`` does from decoded boxes on.

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
        valid = is_finite(boxes).all(dim=1) & is_proposal(rois[:, 1:], logits, min_size)
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
    """Computes what Detectron2's ``fast_rcnn_inference`` does.

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
    row, classes = is_detection(probs, finite, score_threshold).nonzero().unbind(1)
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
