"""Detectron2's RoI heads for images whose labels are not complete: ignore regions, and classes that are not labelled in an image."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.roi_heads import CascadeROIHeads, Res5ROIHeads, ROIHeads, StandardROIHeads
from detectron2.structures import Instances, pairwise_iou
from torch import Tensor

from maskrcnn_ext.common.signatures import with_keyword
from maskrcnn_ext.ops.unlabelled import Unlabelled

# A box with this share of its area inside an ignore region is no background, as COCO ignores such detections at an IoU of 0.5.
IGNORE_THRESHOLD = 0.5


def without_ignored(proposals: Instances, targets: Instances, matcher: Matcher, threshold: float) -> Instances:
    """Leaves out the proposals that would be background although an ignore region covers them.

    Args:
        proposals: of an image, with ``proposal_boxes``.
        targets: the ground truth of the image.
        matcher: labels a proposal 0 if it matches no object.
        threshold: share of a proposal's area in the regions (IoA), from which it is left out. Proposals that match an object stay.
    """
    unlabelled = _unlabelled_of(targets)
    if unlabelled is None or unlabelled.region is None:
        return proposals
    boxes = proposals.proposal_boxes
    covered = (unlabelled.region.share_of(boxes.tensor) >= threshold).nonzero()[:, 0]
    labels = matcher(pairwise_iou(targets.gt_boxes, boxes[covered]))[1]
    keep = torch.ones(len(boxes), dtype=torch.bool, device=covered.device)
    keep[covered[labels == 0]] = False
    return proposals[keep]


def merge_unlabelled_classes(scores: Tensor, proposals: list[Instances]) -> Tensor:
    """Merges the classes that an image does not label into the background, for its background proposals.

    The cross-entropy of such a proposal becomes -log(p(background) + sum of p(c) over the unlabelled classes c): the marginal loss of
    partially labelled data (arXiv:2007.03868). It does not punish a score of an unlabelled class, and raises the background
    only together with them. Proposals that match an object keep the usual loss.

    Args:
        scores: (R, K + 1) logits of K classes and, last, the background.
        proposals: one an image, with ``gt_classes`` and, if labels are incomplete, ``gt_unlabelled``.

    Returns:
        (R, K + 1): at background proposals, the logits of unlabelled classes are the lowest number, and that of the background is the
        log of the sum of their exponentials and its own. The same tensor if all images label all classes.
    """
    num_classes = scores.shape[1] - 1
    rows = []
    for image in proposals:
        unlabelled = _unlabelled_of(image)
        is_open = torch.zeros(num_classes, dtype=torch.bool, device=scores.device)
        if unlabelled is not None and unlabelled.labelled_classes is not None:
            is_open[:] = True
            is_open[unlabelled.labelled_classes] = False
        rows.append((image.gt_classes == num_classes)[:, None] & is_open)
    merged = torch.cat(rows)
    if not merged.any():
        return scores
    logits = scores.float()
    classes, background = logits[:, :num_classes], logits[:, num_classes:]
    joined = torch.cat([classes.masked_fill(~merged, -torch.inf), background], dim=1).logsumexp(dim=1, keepdim=True)
    return torch.cat([classes.masked_fill(merged, torch.finfo(logits.dtype).min), joined], dim=1)


def _unlabelled_of(instances: Instances) -> Unlabelled | None:
    found: Unlabelled | None = instances.get("gt_unlabelled") if instances.has("gt_unlabelled") else None
    return found


def _attach_unlabelled(proposals: list[Instances], targets: list[Instances]) -> None:
    """Passes ``gt_unlabelled`` on to the proposals. Detectron2 passes fields on only in images with objects."""
    for image, truth in zip(proposals, targets, strict=True):
        unlabelled = _unlabelled_of(truth)
        if unlabelled is not None:
            image.gt_unlabelled = unlabelled.repeat(len(image))


class _PartialLabels(ROIHeads):
    """What all forms share."""

    ignore_threshold: float

    def label_and_sample_proposals(self, proposals: list[Instances], targets: list[Instances]) -> list[Instances]:
        """Samples proposals as Detectron2 does, but none of an ignore region as background."""
        kept = [
            without_ignored(image, truth, self.proposal_matcher, self.ignore_threshold)
            for image, truth in zip(proposals, targets, strict=True)
        ]
        sampled: list[Instances] = super().label_and_sample_proposals(kept, targets)
        _attach_unlabelled(sampled, targets)
        return sampled


class PartialROIHeads(_PartialLabels, StandardROIHeads):
    """Detectron2's StandardROIHeads for images with ignore regions, and images that label only some of the classes.

    Set ``model.proposal_generator._target_=maskrcnn_ext.FastRPN`` too, and a mask head of this package, which leaves the pixels of the
    regions out of its loss; :class:`maskrcnn_ext.SafeMapper` and the data sets of this package provide the regions. Where labels are
    complete, samples, losses and random numbers are those of StandardROIHeads; so are weights and inference.

    ``ignore_threshold`` is the share of a proposal's area inside ignore regions (IoA) from which it is no background, 0.5 by default.
    Classes that an image does not label are not punished, see :func:`merge_unlabelled_classes`.

    Example::

        model.roi_heads._target_=maskrcnn_ext.PartialROIHeads model.proposal_generator._target_=maskrcnn_ext.FastRPN
    """

    def __init__(self, *args: Any, ignore_threshold: float = IGNORE_THRESHOLD, **kwargs: Any) -> None:
        """Takes the arguments of Detectron2's heads, and ``ignore_threshold``."""
        super().__init__(*args, **kwargs)
        self.ignore_threshold = ignore_threshold

    def _forward_box(self, features: dict[str, Tensor], proposals: list[Instances]) -> Any:
        if not self.training:
            return super()._forward_box(features, proposals)

        def merge(_module: Any, _inputs: Any, predictions: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return merge_unlabelled_classes(predictions[0], proposals), *predictions[1:]

        # Detectron2 computes predictions and losses in one method.
        hook = self.box_predictor.register_forward_hook(merge)
        try:
            return super()._forward_box(features, proposals)
        finally:
            hook.remove()


class PartialCascadeROIHeads(_PartialLabels, CascadeROIHeads):
    """Detectron2's CascadeROIHeads with the rules of :class:`PartialROIHeads` in every stage.

    Example::

        model.roi_heads._target_=maskrcnn_ext.PartialCascadeROIHeads model.proposal_generator._target_=maskrcnn_ext.FastRPN
    """

    def __init__(self, *args: Any, ignore_threshold: float = IGNORE_THRESHOLD, **kwargs: Any) -> None:
        """Takes the arguments of Detectron2's heads, and ``ignore_threshold``."""
        super().__init__(*args, **kwargs)
        self.ignore_threshold = ignore_threshold

    def _match_and_label_boxes(
        self, proposals: list[Instances], stage: int, targets: list[Instances]
    ) -> list[Instances]:
        kept = [
            without_ignored(image, truth, self.proposal_matchers[stage], self.ignore_threshold)
            for image, truth in zip(proposals, targets, strict=True)
        ]
        matched: list[Instances] = super()._match_and_label_boxes(kept, stage, targets)
        _attach_unlabelled(matched, targets)
        return matched

    def _run_stage(self, features: list[Tensor], proposals: list[Instances], stage: int) -> Any:
        predictions = super()._run_stage(features, proposals, stage)
        if not self.training:
            return predictions
        return merge_unlabelled_classes(predictions[0], proposals), *predictions[1:]


class PartialRes5ROIHeads(_PartialLabels, Res5ROIHeads):
    """Detectron2's Res5ROIHeads, of C4 models, with the rules of :class:`PartialROIHeads`.

    Example::

        model.roi_heads._target_=maskrcnn_ext.PartialRes5ROIHeads model.proposal_generator._target_=maskrcnn_ext.FastRPN
    """

    def __init__(self, *args: Any, ignore_threshold: float = IGNORE_THRESHOLD, **kwargs: Any) -> None:
        """Takes the arguments of Detectron2's heads, and ``ignore_threshold``."""
        super().__init__(*args, **kwargs)
        self.ignore_threshold = ignore_threshold

    def label_and_sample_proposals(self, proposals: list[Instances], targets: list[Instances]) -> list[Instances]:
        """Samples proposals, and merges the unlabelled classes of their scores."""
        sampled = super().label_and_sample_proposals(proposals, targets)

        def merge(_module: Any, _inputs: Any, predictions: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            hook.remove()
            return merge_unlabelled_classes(predictions[0], sampled), *predictions[1:]

        # Detectron2 samples, predicts and computes the losses in one method; the prediction comes next.
        hook = self.box_predictor.register_forward_hook(merge)
        return sampled


# Config checks read the signature, which differs between versions of Detectron2.
PartialROIHeads.__init__.__signature__ = with_keyword(  # type: ignore[attr-defined]
    StandardROIHeads.__init__, "ignore_threshold", IGNORE_THRESHOLD
)
PartialRes5ROIHeads.__init__.__signature__ = with_keyword(  # type: ignore[attr-defined]
    Res5ROIHeads.__init__, "ignore_threshold", IGNORE_THRESHOLD
)
PartialCascadeROIHeads.__init__.__signature__ = with_keyword(  # type: ignore[attr-defined]
    CascadeROIHeads.__init__, "ignore_threshold", IGNORE_THRESHOLD
)
