"""Detection with fixed output shapes, so the GPU runs end to end without synchronising with the host."""

from __future__ import annotations

import math
from typing import Any

from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.roi_heads import FastRCNNOutputLayers, Res5ROIHeads
from detectron2.structures import Boxes
from torch import Tensor, nn

from maskrcnn_ext.inference.optimization.heads import OptimizedPooler, SelectedClassMaskHead
from maskrcnn_ext.inference.optimization.known import ROI_HEADS
from maskrcnn_ext.modeling.padded_selection import clip_padded, select_detections_padded, select_proposals_padded
from maskrcnn_ext.modeling.rpn import FastRPN
from maskrcnn_ext.modeling.tensor_inference import box_stages, classify_boxes, decode_top_anchors, flatten_anchors


class FixedSizeDetection(nn.Module):
    """Computes Detectron2's detections from normalised images, padded to the largest possible number of detections.

    No tensor's shape depends on the values of another, so a CUDA graph can record all of it.

    Example::

        boxes, scores, classes, masks = FixedSizeDetection(maskrcnn_ext.optimize(model, "cuda"))(images, sizes)
    """

    def __init__(self, model: GeneralizedRCNN) -> None:
        """Uses the parts of a model for which :func:`unsupported_reason` returns None."""
        super().__init__()
        self.backbone, self.rpn, self.heads = model.backbone, model.proposal_generator, model.roi_heads

    def settings(self) -> tuple[float, ...]:
        """Returns the limits and thresholds, which users may change in a finished model."""
        rpn, predictor = self.rpn, box_stages(self.heads)[-1][1]
        proposals = rpn.pre_nms_topk[False], rpn.post_nms_topk[False], rpn.nms_thresh, rpn.min_box_size
        return *proposals, predictor.test_score_thresh, predictor.test_nms_thresh, predictor.test_topk_per_image

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        """Detects objects.

        Args:
            images: (N, C, H, W), padded.
            sizes: (N, 2) float, height and width of each image before padding.

        Returns:
            D = ``test_topk_per_image`` detections of each image by descending score: boxes (N, D, 4) in pixels of the input, scores
            (N, D), -inf at places without a detection, and classes (N, D) int64. A model with masks adds their probabilities
            (N, D, S, S) on a grid over each box.
        """
        features = self.backbone(images)
        proposals, valid = self._proposals(features, sizes)
        boxes, scores, classes = self._detections(features, proposals, valid, sizes)
        if not self.heads.mask_on:
            return boxes, scores, classes
        maps = [features[name] for name in self.heads.mask_in_features]
        pooled = self.heads.mask_pooler(maps, [Boxes(of_image) for of_image in boxes])
        masks = self.heads.mask_head.logits(pooled, classes.flatten()).sigmoid()
        return boxes, scores, classes, masks.view(*scores.shape, *masks.shape[-2:])

    def _proposals(self, features: dict[str, Tensor], sizes: Tensor) -> tuple[Tensor, Tensor]:
        """Returns boxes (N, P, 4), and (N, P), which of them are proposals."""
        rpn = self.rpn
        maps = [features[name] for name in rpn.in_features]
        logits, deltas = rpn.rpn_head(maps)
        # Detectron2's main branch makes anchors on the CPU by default; the copy would synchronise with the GPU.
        with logits[0].device:
            anchors = rpn.anchor_generator(maps)
        levels = [
            decode_top_anchors(
                rpn.box2box_transform,
                level.tensor,
                flatten_anchors(level_logits, 1)[..., 0],
                flatten_anchors(level_deltas, 4),
                rpn.pre_nms_topk[False],
            )
            for level, level_logits, level_deltas in zip(anchors, logits, deltas, strict=True)
        ]
        boxes, found = select_proposals_padded(
            levels, sizes, min_size=rpn.min_box_size, nms_threshold=rpn.nms_thresh, limit=rpn.post_nms_topk[False]
        )
        return boxes, found > -math.inf

    def _detections(
        self, features: dict[str, Tensor], proposals: Tensor, valid: Tensor, sizes: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns boxes (N, D, 4), scores (N, D) and classes (N, D)."""
        maps = [features[name] for name in self.heads.box_in_features]
        shape = proposals.shape[:2]

        def pool(boxes: Tensor) -> Tensor:
            pooled: Tensor = self.heads.box_pooler(maps, [Boxes(of_image) for of_image in boxes.view(*shape, 4)])
            return pooled

        def clip(boxes: Tensor) -> Tensor:
            return clip_padded(boxes.view(*shape, 1, 4), sizes)[0].flatten(0, 2)

        boxes, probs = classify_boxes(self.heads, proposals.flatten(0, 1), pool, clip)
        predictor = box_stages(self.heads)[-1][1]
        return select_detections_padded(
            boxes.view(*shape, -1, 4),
            probs.view(*shape, -1),
            valid,
            sizes,
            score_threshold=predictor.test_score_thresh,
            nms_threshold=predictor.test_nms_thresh,
            limit=predictor.test_topk_per_image,
        )


def unsupported_reason(model: GeneralizedRCNN) -> str | None:
    """Returns why :class:`FixedSizeDetection` cannot use a model's parts; None if it can."""
    heads = model.roi_heads
    if type(heads) not in ROI_HEADS or isinstance(heads, Res5ROIHeads) or heads.keypoint_on:
        return f"the RoI heads are {type(heads).__name__}{' with keypoints' * getattr(heads, 'keypoint_on', False)}"
    predictors = [predictor for _, predictor in box_stages(heads)]
    known: list[tuple[str, Any, type]] = [("proposal generator", model.proposal_generator, FastRPN)]
    known += [("box predictor", predictor, FastRCNNOutputLayers) for predictor in predictors]
    known.append(("box pooler", heads.box_pooler, OptimizedPooler))
    if heads.mask_on:
        known += [
            ("mask head", heads.mask_head, SelectedClassMaskHead),
            ("mask pooler", heads.mask_pooler, OptimizedPooler),
        ]
    for name, part, kind in known:
        if type(part) is not kind:
            return f"the {name} is {type(part).__name__}"
    return "the number of detections has no limit" if predictors[-1].test_topk_per_image < 0 else None
