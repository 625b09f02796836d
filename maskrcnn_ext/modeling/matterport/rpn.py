"""Matterport's selection of proposals: all levels of the pyramid compete with each other."""

from __future__ import annotations

import torch
from detectron2.modeling.proposal_generator import RPN
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor

from maskrcnn_ext.modeling.matterport.boxes import nms_inclusive
from maskrcnn_ext.modeling.tensor_inference import clip_boxes


class MatterportRPN(RPN):
    """Detectron2's RPN whose proposals are the best of all levels together, before and after non-maximum suppression.

    ``pre_nms_topk`` applies to an image rather than to a level. Boxes are clipped to the padded image, and small ones are kept
    (``min_box_size`` has no effect). Equal probabilities keep the order of the anchors. If fewer than ``post_nms_topk`` proposals
    remain, Matterport adds empty boxes at the corner; they are omitted here.
    """

    def forward(
        self, images: ImageList, features: dict[str, Tensor], gt_instances: list[Instances] | None = None
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """Computes Detectron2's forward pass with proposals on the padded images."""
        height, width = images.tensor.shape[-2:]
        return super().forward(ImageList(images.tensor, [(height, width)] * len(images)), features, gt_instances)

    @torch.no_grad()
    def predict_proposals(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        image_sizes: list[tuple[int, int]],
    ) -> list[Instances]:
        """Returns an image's proposals by descending objectness.

        Args:
            anchors: A_l anchors of each level.
            pred_objectness_logits: (N, A_l) for each level.
            pred_anchor_deltas: (N, A_l, 4) for each level.
            image_sizes: sizes of the padded images.
        """
        boxes = Boxes.cat(anchors).tensor
        images = zip(torch.cat(pred_objectness_logits, 1), torch.cat(pred_anchor_deltas, 1), image_sizes, strict=True)
        return [self._choose(boxes, *image) for image in images]

    def _choose(self, anchors: Tensor, logits: Tensor, deltas: Tensor, image_size: tuple[int, int]) -> Instances:
        """Returns the proposals of one image."""
        # Ranked by probability, as different large logits have equal probabilities.
        scores = logits.float().sigmoid()
        best = scores.argsort(descending=True, stable=True)[: self.pre_nms_topk[self.training]]
        boxes = self.box2box_transform.apply_deltas(deltas[best], anchors[best])
        finite = boxes.isfinite().all(dim=1) & scores[best].isfinite()
        if not finite.all():
            if self.training:
                raise FloatingPointError("Predicted boxes or scores contain Inf/NaN. Training has diverged.")
            boxes, best = boxes[finite], best[finite]
        height, width = image_size
        boxes = clip_boxes(boxes, (0, 0, width, height), min_length=1)
        keep = nms_inclusive(boxes, scores[best], torch.zeros_like(best), self.nms_thresh)
        keep = keep[: self.post_nms_topk[self.training]]
        return Instances(image_size, proposal_boxes=Boxes(boxes[keep]), objectness_logits=logits[best[keep]])
