"""Detection with results of a size that is known before, so that a GPU goes through all of it without a word from the host."""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

import torch
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.roi_heads import CascadeROIHeads, FastRCNNOutputLayers, StandardROIHeads
from detectron2.structures import Boxes
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_ext.inference.optimization.heads import OwnClassMaskHead
from maskrcnn_ext.inference.optimization.pooling import OptimizedPooler
from maskrcnn_ext.modeling.rpn import FastRPN
from maskrcnn_ext.ops.sorted_nms import sorted_nms


class FixedSizeDetection(nn.Module):
    """From normalised images to as many detections as there can be at most: those of Detectron2, of which some may not be valid.

    No tensor's shape depends on what another one holds.
    """

    def __init__(self, model: GeneralizedRCNN) -> None:
        """Takes the parts of a model of which :func:`why_not` is None."""
        super().__init__()
        self.backbone, self.rpn, self.heads = model.backbone, model.proposal_generator, model.roi_heads

    def settings(self) -> tuple[float, ...]:
        """The numbers that users change in a model that is there."""
        rpn, predictor = self.rpn, _stages(self.heads)[-1][1]
        proposals = rpn.pre_nms_topk[False], rpn.post_nms_topk[False], rpn.nms_thresh, rpn.min_box_size
        return *proposals, predictor.test_score_thresh, predictor.test_nms_thresh, predictor.test_topk_per_image

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        """Detects.

        Args:
            images: (N, C, H, W), padded.
            sizes: (N, 2), height and width of each image before padding.

        Returns:
            Of D = ``test_topk_per_image`` detections by descending score: boxes (N, D, 4), scores (N, D), -inf where there are no more,
            classes (N, D) int64, and, of a model with masks, probabilities (N, D, S, S) on a grid over the box.
        """
        features = self.backbone(images)
        proposals, real = self._proposals(features, sizes)
        boxes, scores, classes = self._detections(features, proposals, real, sizes)
        if not self.heads.mask_on:
            return boxes, scores, classes
        maps = [features[name] for name in self.heads.mask_in_features]
        pooled = self.heads.mask_pooler(maps, [Boxes(of_image) for of_image in boxes])
        masks = self.heads.mask_head.logits(pooled, classes.flatten()).sigmoid()
        return boxes, scores, classes, masks.view(*scores.shape, *masks.shape[-2:])

    def _proposals(self, features: dict[str, Tensor], sizes: Tensor) -> tuple[Tensor, Tensor]:
        """As ``find_top_rpn_proposals``: boxes (N, P, 4), and (N, P) which of them there are."""
        rpn = self.rpn
        maps = [features[name] for name in rpn.in_features]
        logits, deltas = rpn.rpn_head(maps)
        with logits[0].device:  # where Detectron2's main branch makes them on the CPU, and nothing may wait for a copy
            anchors = rpn.anchor_generator(maps)
        picked = rpn.pick(anchors, [_by_place(x, 1)[..., 0] for x in logits], [_by_place(x, 4) for x in deltas])
        most = max(best.shape[1] for best in picked[1])
        boxes = torch.stack([F.pad(x, (0, 0, 0, most - x.shape[1])) for x in picked[0]], dim=1)  # (N, L, K, 4)
        best = torch.stack([F.pad(x.float(), (0, most - x.shape[1]), value=-math.inf) for x in picked[1]], dim=1)
        boxes, finite = _clip(boxes, sizes)
        sides = boxes[..., 2:] - boxes[..., :2]
        valid = finite & best.isfinite() & (sides > rpn.min_box_size).all(dim=3)
        stays = sorted_nms(boxes.flatten(0, 1), valid.flatten(0, 1), rpn.nms_thresh).view_as(valid)
        best = best.masked_fill(~stays, -math.inf).flatten(1)
        best, index = best.topk(min(rpn.post_nms_topk[False], best.shape[1]), dim=1)
        return boxes.flatten(1, 2).gather(1, index[:, :, None].expand(-1, -1, 4)), best > -math.inf

    def _classified(self, maps: list[Tensor], proposals: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (N, P, K or 1, 4) and probabilities (N, P, K + 1); those of a cascade are its stages' mean."""
        stages, boxes, probs = _stages(self.heads), proposals[:, :, None], []
        for number, (head, predictor) in enumerate(stages):
            if number:
                boxes, _ = _clip(boxes, sizes)
            rois = boxes[:, :, 0]
            predictions = predictor(head(self.heads.box_pooler(maps, [Boxes(of_image) for of_image in rois])))
            probs += predictor.predict_probs(predictions, [rois.flatten(0, 1)])
            boxes = predictor.box2box_transform.apply_deltas(predictions[1], rois.flatten(0, 1)).view(
                *rois.shape[:2], -1, 4
            )
        return boxes, (reduce(torch.add, probs) * (1.0 / len(stages))).view(*proposals.shape[:2], -1)

    def _detections(
        self, features: dict[str, Tensor], proposals: Tensor, real: Tensor, sizes: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As ``fast_rcnn_inference``: boxes (N, D, 4), scores (N, D) and classes (N, D)."""
        predictor = _stages(self.heads)[-1][1]
        boxes, probs = self._classified([features[name] for name in self.heads.box_in_features], proposals, sizes)
        boxes, finite = _clip(boxes, sizes)
        real = real & finite.all(dim=2) & probs.isfinite().all(dim=2)
        # Classes do not suppress each other: each is a list of its own.
        scores, index = probs[:, :, :-1].transpose(1, 2).sort(dim=2, descending=True, stable=True)  # (N, K, P)
        boxes = boxes.transpose(1, 2).expand(-1, scores.shape[1], -1, -1)
        boxes = boxes.gather(2, index[..., None].expand(-1, -1, -1, 4))
        valid = (scores > predictor.test_score_thresh) & real[:, None].expand_as(scores).gather(2, index)
        stays = sorted_nms(boxes.flatten(0, 1), valid.flatten(0, 1), predictor.test_nms_thresh).view_as(valid)
        scores = scores.masked_fill(~stays, -math.inf).flatten(1)
        scores, chosen = scores.topk(min(predictor.test_topk_per_image, scores.shape[1]), dim=1)
        boxes = boxes.flatten(1, 2).gather(1, chosen[:, :, None].expand(-1, -1, 4))
        return boxes, scores, chosen // real.shape[1]


def why_not(model: GeneralizedRCNN) -> str | None:
    """Why :class:`FixedSizeDetection` cannot take a model's parts; None where it can."""
    heads = model.roi_heads
    if type(heads) not in (StandardROIHeads, CascadeROIHeads) or heads.keypoint_on:
        return f"the RoI heads are {type(heads).__name__}{' with keypoints' * getattr(heads, 'keypoint_on', False)}"
    predictors = [predictor for _, predictor in _stages(heads)]
    known: list[tuple[str, Any, type]] = [("proposal generator", model.proposal_generator, FastRPN)]
    known += [("box predictor", predictor, FastRCNNOutputLayers) for predictor in predictors]
    known.append(("box pooler", heads.box_pooler, OptimizedPooler))
    if heads.mask_on:
        known += [("mask head", heads.mask_head, OwnClassMaskHead), ("mask pooler", heads.mask_pooler, OptimizedPooler)]
    for name, part, kind in known:
        if type(part) is not kind:
            return f"the {name} is {type(part).__name__}"
    return "there is no limit of the detections" if predictors[-1].test_topk_per_image < 0 else None


def _stages(heads: StandardROIHeads) -> list[tuple[nn.Module, FastRCNNOutputLayers]]:
    """Box heads and predictors: one of each, or those of a cascade."""
    if isinstance(heads, CascadeROIHeads):
        return list(zip(heads.box_head, heads.box_predictor, strict=True))
    return [(heads.box_head, heads.box_predictor)]


def _by_place(maps: Tensor, values: int) -> Tensor:
    """(N, A * values, H, W) of A anchors to (N, H * W * A, values)."""
    return maps.unflatten(1, (-1, values)).permute(0, 3, 4, 1, 2).flatten(1, 3)


def _clip(boxes: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Cuts (N, A, B, 4) off at the borders of images (N, 2); also returns (N, A, B), which were finite. Those that were not are 0."""
    finite = boxes.isfinite().all(dim=3)
    corners = boxes.masked_fill(~finite[..., None], 0.0).unflatten(3, (2, 2))
    inside = torch.minimum(corners.clamp(min=0), sizes.flip(1)[:, None, None, None])
    return inside.flatten(3), finite
