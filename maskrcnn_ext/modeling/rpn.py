"""Detectron2's RPN, which computes for the few anchors that matter what the stock one computes for all."""

from __future__ import annotations

from functools import wraps
from typing import Any

import torch
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.proposal_generator.proposal_utils import find_top_rpn_proposals
from detectron2.structures import Boxes, Instances
from torch import Tensor

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.modeling.tensor_inference import decode_top_anchors
from maskrcnn_ext.ops.matching import match_boxes


class FastRPN(RPN):
    """The stock RPN, number for number, faster and in less memory: ``model.proposal_generator._target_=maskrcnn_ext.FastRPN``.

    Of a quarter of a million anchors of an image of 800 x 1216 pixels, the best of each level are picked before boxes are decoded; anchors
    are matched with the ground truth piece by piece; only the sampled ones go into the losses. Weights, samples and losses are those of
    Detectron2's RPN. Of anchors with equal scores another one may be the last that is picked.

    The arguments are those of Detectron2's RPN.

    Raises:
        InputError: for rotated boxes, or another class of matcher than Detectron2's.
    """

    @wraps(RPN.__init__)  # type: ignore[misc]  # overrides are checked against the signature
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.anchor_generator.box_dim != 4:
            raise InputError("FastRPN has no rotated boxes: use Detectron2's RRPN")
        if type(self.anchor_matcher) is not Matcher:
            raise InputError(
                f"FastRPN matches as Detectron2's Matcher does, not as {type(self.anchor_matcher).__name__}: use Detectron2's RPN"
            )

    @torch.no_grad()
    def label_and_sample_anchors(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """As RPN's: a label (R,) and a ground-truth box (R, 4) of each of the R anchors of all levels, one an image."""
        every = Boxes.cat(anchors)
        labels, matched = [], []
        for image in gt_instances:
            truth = image.gt_boxes.tensor
            index, of_image = match_boxes(
                truth,
                every.tensor,
                self.anchor_matcher.thresholds[1:-1],  # between the infinities that the Matcher has added
                self.anchor_matcher.labels,
                allow_low_quality_matches=self.anchor_matcher.allow_low_quality_matches,
            )
            if self.anchor_boundary_thresh >= 0:
                of_image[~every.inside_box(image.image_size, self.anchor_boundary_thresh)] = -1
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
        """As RPN's, of the anchors that are sampled in any image."""
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
        """As RPN's."""
        levels = [
            decode_top_anchors(self.box2box_transform, level.tensor, logits, deltas, self.pre_nms_topk[self.training])
            for level, logits, deltas in zip(anchors, pred_objectness_logits, pred_anchor_deltas, strict=True)
        ]
        found: list[Instances] = find_top_rpn_proposals(
            [boxes for boxes, _ in levels],
            [logits for _, logits in levels],
            image_sizes,
            self.nms_thresh,
            self.pre_nms_topk[self.training],
            self.post_nms_topk[self.training],
            self.min_box_size,
            self.training,
        )
        return found
