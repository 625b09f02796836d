"""Detectron2's RPN, computed only for the anchors that affect the result."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.proposal_generator.proposal_utils import find_top_rpn_proposals
from detectron2.structures import Boxes, Instances
from torch import Tensor

from maskrcnn_ext.common.signatures import with_keyword
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.modeling.padded_selection import select_proposals_padded
from maskrcnn_ext.modeling.partial_labels import IGNORE_THRESHOLD
from maskrcnn_ext.modeling.tensor_inference import decode_top_anchors
from maskrcnn_ext.ops import sorted_nms
from maskrcnn_ext.ops.matching import match_boxes
from maskrcnn_ext.ops.native import loads


class FastRPN(RPN):
    """Detectron2's RPN with the same numbers, faster and in less memory. The arguments are the same.

    An image of 800 x 1216 pixels has a quarter of a million anchors. FastRPN selects the best anchors of each level before it decodes
    boxes, matches anchors to the ground truth piece by piece, and computes the losses of the sampled anchors only. Weights, samples and
    losses are those of Detectron2's RPN. If scores are equal, the last selected anchor may differ.

    An anchor that matches no object is no background if the ignore regions of the image (``gt_unlabelled``, which
    :class:`maskrcnn_ext.SafeMapper` makes of crowds) cover ``ignore_threshold`` of its area or more.

    Raises:
        InputError: rotated boxes, or a matcher that is not Detectron2's.

    Example::

        model.proposal_generator._target_=maskrcnn_ext.FastRPN
    """

    def __init__(self, *args: Any, ignore_threshold: float = IGNORE_THRESHOLD, **kwargs: Any) -> None:
        """Takes the arguments of Detectron2's RPN, and ``ignore_threshold``."""
        super().__init__(*args, **kwargs)
        self.ignore_threshold = ignore_threshold
        if self.anchor_generator.box_dim != 4:
            raise InputError("FastRPN does not support rotated boxes: use Detectron2's RRPN")
        if type(self.anchor_matcher) is not Matcher:
            raise InputError(
                f"FastRPN supports Detectron2's Matcher, not {type(self.anchor_matcher).__name__}: use Detectron2's RPN"
            )

    @torch.no_grad()
    def label_and_sample_anchors(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Returns labels (R,) and ground-truth boxes (R, 4) for each image, as RPN does. R: anchors of all levels."""
        every = Boxes.cat(anchors)
        labels, matched = [], []
        for image in gt_instances:
            truth = image.gt_boxes.tensor
            index, of_image = match_boxes(
                truth,
                every.tensor,
                self.anchor_matcher.thresholds[1:-1],  # without the infinities that Matcher adds
                self.anchor_matcher.labels,
                allow_low_quality_matches=self.anchor_matcher.allow_low_quality_matches,
            )
            if self.anchor_boundary_thresh >= 0:
                of_image[~every.inside_box(image.image_size, self.anchor_boundary_thresh)] = -1
            if image.has("gt_unlabelled") and image.gt_unlabelled.region is not None:
                background = (of_image == 0).nonzero()[:, 0]
                covered = image.gt_unlabelled.region.share_of(every.tensor[background]) >= self.ignore_threshold
                of_image[background[covered]] = -1
            labels.append(self._subsample_labels(of_image))
            matched.append(truth[index] if len(truth) else torch.zeros_like(every.tensor))
        return labels, matched

    def losses(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[Tensor],
        gt_labels: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        gt_boxes: list[Tensor],
    ) -> dict[str, Tensor]:
        """Returns the losses of RPN, computed from the anchors that are sampled in any image."""
        labels = torch.stack(gt_labels)
        sampled = (labels >= 0).any(dim=0).nonzero()[:, 0]
        losses: dict[str, Tensor] = super().losses(
            [Boxes(Boxes.cat(anchors).tensor[sampled])],
            [torch.cat(pred_objectness_logits, dim=1)[:, sampled]],
            list(labels[:, sampled]),
            [torch.cat(pred_anchor_deltas, dim=1)[:, sampled]],
            [boxes[sampled] for boxes in gt_boxes],
        )
        return losses

    @torch.no_grad()
    def predict_proposals(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        image_sizes: list[tuple[int, int]],
    ) -> list[Instances]:
        """Returns the proposals of RPN, one ``Instances`` for each image."""
        if torch.jit.is_tracing():  # only RPN's own code counts the anchors and proposals of later images
            traced: list[Instances] = super().predict_proposals(
                anchors, pred_objectness_logits, pred_anchor_deltas, image_sizes
            )
            return traced
        levels = [
            decode_top_anchors(self.box2box_transform, level.tensor, logits, deltas, self.pre_nms_topk[self.training])
            for level, logits, deltas in zip(anchors, pred_objectness_logits, pred_anchor_deltas, strict=True)
        ]
        limit = self.post_nms_topk[self.training]
        if levels[0][0].device.type == "cpu" and loads(sorted_nms.library):
            return self._select_proposals(levels, image_sizes, limit)
        found: list[Instances] = find_top_rpn_proposals(
            [boxes for boxes, _ in levels],
            [logits for _, logits in levels],
            image_sizes,
            self.nms_thresh,
            self.pre_nms_topk[self.training],
            limit,
            self.min_box_size,
            self.training,
        )
        return found

    def _select_proposals(
        self, levels: list[tuple[Tensor, Tensor]], image_sizes: list[tuple[int, int]], limit: int
    ) -> list[Instances]:
        """Returns the proposals of ``find_top_rpn_proposals``, with the compiled suppression."""
        if self.training and not all(torch.isfinite(values).all() for level in levels for values in level):
            raise FloatingPointError("Predicted boxes or scores contain Inf/NaN. Training has diverged.")
        boxes, logits = select_proposals_padded(
            levels,
            torch.tensor(image_sizes, dtype=torch.float32),
            min_size=self.min_box_size,
            nms_threshold=self.nms_thresh,
            limit=limit,
        )
        found = []
        for size, of_image, scores in zip(image_sizes, boxes, logits, strict=True):
            count = int((scores > -torch.inf).sum())  # the others are at the end
            found.append(Instances(size, proposal_boxes=Boxes(of_image[:count]), objectness_logits=scores[:count]))
        return found


# Config checks read the signature, which differs between versions of Detectron2.
FastRPN.__init__.__signature__ = with_keyword(RPN.__init__, "ignore_threshold", IGNORE_THRESHOLD)  # type: ignore[attr-defined]
