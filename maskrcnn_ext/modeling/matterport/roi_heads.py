"""Matterport's selection of detections: one class for each proposal, clipped to the image inside the canvas."""

from __future__ import annotations

import torch
from detectron2.modeling.roi_heads import FastRCNNOutputLayers, StandardROIHeads
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor

from maskrcnn_ext.modeling.matterport.boxes import nms_inclusive
from maskrcnn_ext.modeling.matterport.rcnn import centred
from maskrcnn_ext.modeling.tensor_inference import clip_boxes


class MatterportROIHeads(StandardROIHeads):
    """Detectron2's StandardROIHeads that passes the window of each image in the canvas to :class:`MatterportOutputLayers`."""

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """Computes Detectron2's forward pass; detections are in pixels of the padded images."""
        if not self.training:
            for image_size, found in zip(images.image_sizes, proposals, strict=True):
                window = centred(image_size, images.tensor.shape[-2:])
                found.window = found.proposal_boxes.tensor.new_tensor(window).expand(len(found), 4)
        return super().forward(images, features, proposals, targets)


class MatterportOutputLayers(FastRCNNOutputLayers):
    """Detectron2's box predictor with one detection for each proposal whose most probable class is not the background.

    It is clipped to the proposal's ``window`` (x0, y0, x1, y1), or to the whole image without one, and kept if its score is at least
    ``test_score_thresh``.
    """

    def inference(
        self, predictions: tuple[Tensor, Tensor], proposals: list[Instances]
    ) -> tuple[list[Instances], list[Tensor]]:
        """Returns each image's detections by descending score, and the indices of their proposals.

        Args:
            predictions: logits (R, K + 1), background last, and deltas (R, K * 4), of all images.
            proposals: the proposals of each image.
        """
        boxes, probabilities = self.predict_boxes(predictions, proposals), self.predict_probs(predictions, proposals)
        found = [self._choose(*image) for image in zip(boxes, probabilities, proposals, strict=True)]
        return [instances for instances, _ in found], [kept for _, kept in found]

    def _choose(self, boxes: Tensor, probabilities: Tensor, proposals: Instances) -> tuple[Instances, Tensor]:
        """Returns the detections of an image and the indices of their proposals."""
        scores, classes = probabilities.max(dim=1)
        # A comparison with NaN is false.
        chosen = torch.nonzero((classes < self.num_classes) & (scores >= self.test_score_thresh))[:, 0]
        scores, classes = scores[chosen], classes[chosen]
        boxes = boxes.unflatten(1, (-1, 4))[chosen]
        boxes = boxes[torch.arange(len(chosen), device=boxes.device), classes.clamp(max=boxes.shape[1] - 1)]
        height, width = proposals.image_size
        window = proposals.window[chosen] if proposals.has("window") else boxes.new_tensor([0, 0, width, height])
        boxes = clip_boxes(boxes, window.unbind(-1), min_length=1)
        keep = nms_inclusive(boxes, scores, classes, self.test_nms_thresh)[: self.test_topk_per_image]
        found = Instances(proposals.image_size)
        found.pred_boxes, found.scores, found.pred_classes = Boxes(boxes[keep]), scores[keep], classes[keep]
        return found, chosen[keep]
