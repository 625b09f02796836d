"""Boxes, classes and target masks of a batch's instances, and the scalars and pictures that compare masks with them."""

from __future__ import annotations

import torch
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import get_event_storage
from torch import Tensor

from maskrcnn_ext.ops.unlabelled import IgnoreRegion


def boxes_of(instances: list[Instances]) -> list[Boxes]:
    """Returns the boxes of the RoI features, one ``Boxes`` for each image: proposals in training, detections in inference."""
    return [image.proposal_boxes if image.has("proposal_boxes") else image.pred_boxes for image in instances]


def classes_of(instances: list[Instances]) -> Tensor:
    """Returns (R,) int64, the class of each RoI: the ground truth in training, the prediction in inference."""
    return torch.cat(
        [image.gt_classes if image.has("gt_classes") else image.pred_classes for image in instances]
    ).long()


def target_masks(instances: list[Instances], size: int) -> Tensor:
    """Returns the ground-truth masks, cropped to the proposals and resized.

    Args:
        instances: with ``gt_masks`` and ``proposal_boxes``, one for each image.
        size: side S of the grid over a box.

    Returns:
        (R, S, S) boolean, R: RoIs of all images in the batch, on the boxes' device.
    """
    crops = [
        image.gt_masks.crop_and_resize(image.proposal_boxes.tensor, size).to(image.proposal_boxes.device)
        for image in instances
        if len(image)
    ]
    if not crops:
        return torch.zeros((0, size, size), dtype=torch.bool, device=instances[0].proposal_boxes.device)
    return torch.cat(crops)


def known_pixels(instances: list[Instances], size: int) -> Tensor | None:
    """Returns which cells of the masks of :func:`target_masks` are labelled: those that ignore regions cover by less than half.

    Args:
        instances: with ``proposal_boxes`` and, in an image with ignore regions, ``gt_unlabelled``.
        size: side S of the grid over a box.

    Returns:
        (R, S, S) boolean; None if no image has an ignore region, so that all cells are labelled.
    """
    if all(_region_of(image) is None for image in instances):
        return None
    known = []
    for image in instances:
        boxes, region = image.proposal_boxes.tensor, _region_of(image)
        known.append(
            torch.ones(len(boxes), size, size, dtype=torch.bool, device=boxes.device)
            if region is None
            else ~region.cells_of(boxes, size)
        )
    return torch.cat(known)


def _region_of(image: Instances) -> IgnoreRegion | None:
    region: IgnoreRegion | None = image.gt_unlabelled.region if image.has("gt_unlabelled") else None
    return region


def select_class(logits: Tensor, classes: Tensor) -> Tensor:
    """Returns the channel of each RoI's class.

    Args:
        logits: (R, C, ...) or, if the masks are class-agnostic, (R, 1, ...).
        classes: (R,) int64.

    Returns:
        (R, ...)
    """
    if logits.shape[1] == 1:
        return logits[:, 0]
    return logits[torch.arange(len(classes), device=logits.device), classes]


def log_accuracy(predicted: Tensor, targets: Tensor) -> None:
    """Writes the scalars of Detectron2's own mask head: ``mask_rcnn/{accuracy,false_positive,false_negative}``.

    Args:
        predicted: (R, S, S) boolean, the thresholded mask.
        targets: (R, S, S) boolean.
    """
    wrong = predicted != targets
    positive = targets.sum()
    negative = targets.numel() - positive
    counts = torch.stack(
        [wrong.sum(), (wrong & ~targets).sum(), (wrong & targets).sum(), negative, positive]
    ).tolist()  # one transfer from the device
    storage = get_event_storage()
    storage.put_scalar("mask_rcnn/accuracy", 1 - counts[0] / max(wrong.numel(), 1))
    storage.put_scalar("mask_rcnn/false_positive", counts[1] / max(counts[3], 1))
    storage.put_scalar("mask_rcnn/false_negative", counts[2] / max(counts[4], 1))


def log_images(probs: Tensor, targets: Tensor, vis_period: int) -> None:
    """Writes prediction and target of each RoI side by side every ``vis_period`` iterations (0: never), as Detectron2's head does.

    Args:
        probs: (R, S, S) in [0, 1].
        targets: (R, S, S).
        vis_period: iterations.
    """
    if vis_period <= 0:
        return
    storage = get_event_storage()
    if storage.iter % vis_period == 0:
        for index, pair in enumerate(torch.cat([probs.detach().float(), targets.float()], dim=2)):
            storage.put_image(f"Left: mask prediction;   Right: mask GT ({index})", pair.expand(3, -1, -1))
