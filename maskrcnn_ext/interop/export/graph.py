"""A GeneralizedRCNN as a function of tensors, which can be traced: images in, their detections out, nothing pasted."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.roi_heads import (
    CascadeROIHeads,
    FastRCNNOutputLayers,
    KRCNNConvDeconvUpsampleHead,
    Res5ROIHeads,
    StandardROIHeads,
)
from detectron2.modeling.roi_heads.mask_head import BaseMaskRCNNHead
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.interop.export.pooling import as_boxes, pool, takes_several_images
from maskrcnn_ext.interop.export.selection import apart, clip, first_of_each, nms, own_channel, select, whole
from maskrcnn_ext.modeling.compact_rcnn import CompactRCNN
from maskrcnn_ext.modeling.mask_heads.base import MaskHead
from maskrcnn_ext.modeling.mask_heads.mask_scoring import MaskScoringHead
from maskrcnn_ext.modeling.poolers.deformable import DeformableROIPooler
from maskrcnn_ext.modeling.poolers.precise import PreciseROIPooler
from maskrcnn_ext.modeling.rpn import FastRPN
from maskrcnn_ext.modeling.torchvision_parts import TorchvisionRCNN


class Exportable(nn.Module):
    """Detectron2's inference, box for box, without what a tracer cannot follow.

    Detectron2 loops over images, turns tensors into numbers and branches on them; here is the same arithmetic on tensors alone. Every
    part of the model but the two selections of boxes is called as it is.
    """

    # What is stated anew here: a subclass of these may compute something else.
    stated: ClassVar[dict[str, tuple[type, ...]]] = {
        "": (GeneralizedRCNN, CompactRCNN, TorchvisionRCNN),
        "proposal_generator": (RPN, FastRPN),
        "roi_heads": (StandardROIHeads, CascadeROIHeads, Res5ROIHeads),
        "roi_heads.box_predictor": (FastRCNNOutputLayers,),
    }

    def __init__(self, model: nn.Module, batched: bool = False) -> None:
        """Takes a model apart.

        Args:
            model: a GeneralizedRCNN in evaluation mode.
            batched: take N images of one size.

        Raises:
            InputError: it has a part whose selection of boxes is its own, or that cannot tell several images' boxes apart.
        """
        super().__init__()
        _check(model, self.stated)
        if batched:
            _check_batched(model)
        self.model = model
        self.batched = batched
        self.eval()  # the tracers put everything back into the mode that this module was in

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Detects.

        Args:
            images: (C, H, W) float32, resized, in the model's order of channels, from 0 to 255; (N, C, H, W) for a batched one.

        Returns:
            Of R detections by descending score, R may be 0: boxes (R, 4) in pixels of the input, scores (R,), classes (R,) int64; then,
            as :func:`output_names` tells, masks (R, S, S), probabilities on a grid over the box; mask_scores (R,); keypoint_heatmaps
            (R, K, S, S), logits on a grid over the box; image (R,) int64, the number of the one that each is from, ascending.
        """
        images = images if self.batched else images[None]
        size = images.shape[-2:]
        features = self.model.backbone(self._batch(images))
        proposals = self._proposals(features, size, images.shape[0])
        rois, scores, classes = self._detections(features, proposals, size, images.shape[0])
        outputs = [self._boxes(rois[:, 1:], size), scores, classes]
        heads = self.model.roi_heads
        if heads.mask_on:
            outputs += self._masks(features, rois, scores, classes)
        if getattr(heads, "keypoint_on", False):
            maps = [features[name] for name in heads.keypoint_in_features]
            outputs.append(heads.keypoint_head.layers(pool(heads.keypoint_pooler, maps, rois)))
        if self.batched:
            outputs.append(rois[:, 0].long())
        return tuple(outputs)

    def _batch(self, images: Tensor) -> Tensor:
        """Normalises, then pads with 0."""
        images = (images - self.model.pixel_mean) / self.model.pixel_std
        multiple = self.model.backbone.size_divisibility
        if multiple <= 1:
            return images
        rest = [(side + multiple - 1) // multiple * multiple - side for side in images.shape[-2:]]
        return F.pad(images, [0, rest[1], 0, rest[0]])

    def _boxes(self, boxes: Tensor, size: Any) -> Tensor:  # noqa: ARG002
        """(R, 4) in pixels of what the backbone sees to pixels of the input, which begins where that does."""
        return boxes

    def _proposals(self, features: dict[str, Tensor], size: Any, count: Any) -> Tensor:
        """Returns RoIs (P, 5): of an image's every level the best, without those that others of the level cover, and of these the best."""
        rpn = self.model.proposal_generator
        maps = [features[name] for name in rpn.in_features]
        before = rpn.pre_nms_topk[False]
        numbers = torch.arange(count, device=maps[0].device)[:, None]
        kept_rois, kept_scores = [], []
        for logits, deltas, anchors in zip(*rpn.rpn_head(maps), rpn.anchor_generator(maps), strict=True):
            # As many in every image, so that no count depends on its size: what is filled up is invalid below.
            flat = by_place(logits, 1).flatten(1)
            scores, index = F.pad(flat, (0, before), value=-math.inf).topk(before)
            index = index % flat.shape[1]
            own = (index + numbers * flat.shape[1]).flatten()
            boxes = rpn.box2box_transform.apply_deltas(
                by_place(deltas, 4).flatten(0, 1)[own], anchors.tensor[index.flatten()]
            )
            rois = torch.cat([numbers.expand(-1, before).reshape(-1, 1), clip(boxes, whole(size))], dim=1)
            scores = scores.flatten()
            sides = rois[:, 3:] - rois[:, 1:3]
            # Not a number is not more than anything, and infinite times nothing is not a number.
            valid = (sides > rpn.min_box_size).all(dim=1) & (scores * 0 == 0)
            rois, scores = rois[valid], scores[valid]
            keep = nms(apart(rois[:, 1:], rois[:, 0], size), scores, rpn.nms_thresh)
            kept_rois.append(rois[keep])
            kept_scores.append(scores[keep])
        rois = torch.cat(kept_rois)[torch.cat(kept_scores).argsort(descending=True)]
        return rois[first_of_each(rois[:, 0], rpn.post_nms_topk[False], count)]

    def _detections(
        self, features: dict[str, Tensor], rois: Tensor, size: Any, count: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns RoIs (R, 5), scores (R,) and classes (R,)."""
        heads = self.model.roi_heads
        if isinstance(heads, CascadeROIHeads):
            boxes, probs = self._cascade(features, rois, size)
            predictor = heads.box_predictor[-1]
        else:
            predictor = heads.box_predictor
            if isinstance(heads, Res5ROIHeads):
                pooled = self._res5(features, rois).mean(dim=[2, 3])
            else:
                maps = [features[name] for name in heads.box_in_features]
                pooled = heads.box_head(pool(heads.box_pooler, maps, rois))
            logits, deltas = predictor(pooled)
            boxes, probs = predictor.box2box_transform.apply_deltas(deltas, rois[:, 1:]), _probs(predictor, logits)
        return select(rois, boxes, probs, predictor, size, count)

    def _cascade(self, features: dict[str, Tensor], rois: Tensor, size: Any) -> tuple[Tensor, Tensor]:
        heads = self.model.roi_heads
        maps = [features[name] for name in heads.box_in_features]
        boxes, probs = rois[:, 1:], []
        for stage, (head, predictor) in enumerate(zip(heads.box_head, heads.box_predictor, strict=True)):
            boxes = clip(boxes, whole(size)) if stage else boxes
            logits, deltas = predictor(head(pool(heads.box_pooler, maps, torch.cat([rois[:, :1], boxes], dim=1))))
            probs.append(_probs(predictor, logits))
            boxes = predictor.box2box_transform.apply_deltas(deltas, boxes)
        return boxes, torch.stack(probs).mean(dim=0)

    def _res5(self, features: dict[str, Tensor], rois: Tensor) -> Tensor:
        heads = self.model.roi_heads
        pooled: Tensor = heads.res5(pool(heads.pooler, [features[name] for name in heads.in_features], rois))
        return pooled

    def _masks(self, features: dict[str, Tensor], rois: Tensor, scores: Tensor, classes: Tensor) -> list[Tensor]:
        heads = self.model.roi_heads
        head = heads.mask_head
        x: Any
        if isinstance(heads, Res5ROIHeads):
            x = self._res5(features, rois)
        elif heads.mask_pooler is None:
            x = {name: features[name] for name in heads.mask_in_features}
        else:
            x = pool(heads.mask_pooler, [features[name] for name in heads.mask_in_features], rois)
        if not isinstance(head, MaskHead):  # Detectron2's own
            logits = head.layers(x)
            return [own_channel(logits, classes).sigmoid()]
        prediction = head.predict(x, [as_boxes(rois[:, 1:])])
        probs = head.probs(prediction, classes)
        if not isinstance(head, MaskScoringHead):
            return [probs[:, 0]]
        iou = predict_iou(head, prediction.roi_features, probs, classes).clamp(0, 1)
        return [probs[:, 0], scores * iou]


def output_names(model: nn.Module, batched: bool = False) -> tuple[str, ...]:
    """Names of what :class:`Exportable` returns for a model, in its order."""
    heads = model.roi_heads
    optional = {
        "masks": heads.mask_on,
        "mask_scores": heads.mask_on and isinstance(heads.mask_head, MaskScoringHead),
        "keypoint_heatmaps": getattr(heads, "keypoint_on", False),
        "image": batched,
    }
    return ("boxes", "scores", "classes", *(name for name, there in optional.items() if there))


def by_place(maps: Tensor, values: int) -> Tensor:
    """(N, A * values, H, W) of A anchors to (N, H * W * A, values)."""
    split = maps.reshape(maps.shape[0], -1, values, maps.shape[2], maps.shape[3])
    return split.permute(0, 3, 4, 1, 2).flatten(1, 3)


def predict_iou(head: MaskScoringHead, roi_features: Tensor, probs: Tensor, classes: Tensor) -> Tensor:
    """``head.predict_iou`` with a pooling that ONNX has: it has no adaptive one."""
    masks = probs
    for axis, bins in ((2, head.input_shape.height), (3, head.input_shape.width)):
        side = int(probs.shape[axis])  # a constant of the head, not of the image
        edges = [(index * side // bins, -(-(index + 1) * side // bins)) for index in range(bins)]
        masks = torch.stack([masks.narrow(axis, low, high - low).amax(dim=axis) for low, high in edges], dim=axis)
    features = head.iou_convs(torch.cat([roi_features, masks], dim=1)).flatten(1)
    return own_channel(head.iou_predictor(head.iou_fcs(features)), classes)


def _probs(predictor: FastRCNNOutputLayers, logits: Tensor) -> Tensor:
    return logits.sigmoid() if getattr(predictor, "use_sigmoid_ce", False) else logits.softmax(dim=1)


def _check(model: nn.Module, stated: dict[str, tuple[type, ...]]) -> None:
    for path, known in stated.items():
        part = model.get_submodule(path)
        for one in part if isinstance(part, nn.ModuleList) else [part]:  # the stages of a cascade
            if type(one) not in known:
                names = " or ".join(kind.__name__ for kind in known)
                raise InputError(
                    f"{type(one).__name__} cannot be exported: model{'.' * bool(path)}{path} has to be a {names}"
                )
    if getattr(model.backbone, "padding_constraints", {}).get("square_size"):
        raise InputError(
            f"{type(model.backbone).__name__} cannot be exported: it takes squares of one size alone, as ViTDet does"
        )
    heads = model.roi_heads
    for name, part in heads.named_modules():
        if isinstance(part, PreciseROIPooler | DeformableROIPooler):
            raise InputError(
                f"{type(part).__name__} cannot be exported: how much it computes depends on the boxes, and tracers keep the example's; "
                f"model.roi_heads.{name} can be another pooler"
            )
    mask_head, keypoint_head = getattr(heads, "mask_head", None), getattr(heads, "keypoint_head", None)
    if not isinstance(mask_head, BaseMaskRCNNHead | None):
        raise InputError(
            f"{type(mask_head).__name__} cannot be exported: it is none of Detectron2's or maskrcnn_ext's mask heads"
        )
    if not isinstance(keypoint_head, KRCNNConvDeconvUpsampleHead | None):
        raise InputError(
            f"{type(keypoint_head).__name__} cannot be exported: it is not Detectron2's KRCNNConvDeconvUpsampleHead"
        )


def _check_batched(model: nn.Module) -> None:
    heads = model.roi_heads
    for name in ("pooler", "box_pooler", "mask_pooler", "keypoint_pooler"):
        pooler = getattr(heads, name, None)
        if pooler is not None and not takes_several_images(pooler):
            raise InputError(
                f"--batch: {type(pooler).__name__} (model.roi_heads.{name}) is exported for one image at a time"
            )
    if heads.mask_on and not isinstance(heads, Res5ROIHeads) and heads.mask_pooler is None:
        raise InputError(
            f"--batch: {type(heads.mask_head).__name__}, which samples the feature maps itself, is exported for one image at a time"
        )
