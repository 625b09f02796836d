"""A GeneralizedRCNN as a traceable function of tensors: from images to detections, with masks that are not pasted."""

from __future__ import annotations

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
from maskrcnn_ext.interop.export.pooling import make_boxes, pool_rois, supports_batches
from maskrcnn_ext.modeling.box_predictor import BoxPredictor
from maskrcnn_ext.modeling.compact_rcnn import CompactRCNN
from maskrcnn_ext.modeling.list_selection import select_detections, select_proposals
from maskrcnn_ext.modeling.mask_heads.base import MaskHead
from maskrcnn_ext.modeling.mask_heads.ground_truth import select_class
from maskrcnn_ext.modeling.mask_heads.mask_scoring import MaskScoringHead
from maskrcnn_ext.modeling.mmdet_parts import MeanLogitCascadeROIHeads
from maskrcnn_ext.modeling.partial_labels import PartialCascadeROIHeads, PartialRes5ROIHeads, PartialROIHeads
from maskrcnn_ext.modeling.poolers.deformable import DeformableROIPooler
from maskrcnn_ext.modeling.poolers.precise import PreciseROIPooler
from maskrcnn_ext.modeling.rpn import FastRPN
from maskrcnn_ext.modeling.tensor_inference import (
    box_stages,
    classify_boxes,
    clip_boxes,
    decode_top_anchors,
    flatten_anchors,
    image_window,
)
from maskrcnn_ext.modeling.torchvision_parts import TorchvisionRCNN


class Exportable(nn.Module):
    """Computes Detectron2's inference, box for box, with tensor operations that a tracer can follow.

    Detectron2 loops over images and branches on the values of tensors, which tracers record for one example only. The selections of
    proposals and detections are therefore those of :mod:`maskrcnn_ext.modeling.list_selection`; every other part of the model is
    called unchanged.

    Example::

        boxes, scores, classes, masks = Exportable(model)(image)
    """

    # The classes whose inference is computed here by other code. Their subclasses may compute something else.
    supported: ClassVar[dict[str, tuple[type, ...]]] = {
        "": (GeneralizedRCNN, CompactRCNN, TorchvisionRCNN),
        "proposal_generator": (RPN, FastRPN),
        "roi_heads": (
            StandardROIHeads,
            PartialROIHeads,
            CascadeROIHeads,
            PartialCascadeROIHeads,
            PartialRes5ROIHeads,
            MeanLogitCascadeROIHeads,
            Res5ROIHeads,
        ),
        "roi_heads.box_predictor": (FastRCNNOutputLayers, BoxPredictor),
    }

    def __init__(self, model: nn.Module, batched: bool = False) -> None:
        """Checks that a model can be exported.

        Args:
            model: a GeneralizedRCNN in evaluation mode.
            batched: take N images of one size.

        Raises:
            InputError: a part of the model selects boxes by its own rules, or cannot assign boxes to several images.
        """
        super().__init__()
        _check_parts(model, self.supported)
        if batched:
            _check_batch_support(model)
        self.model = model
        self.batched = batched
        self.eval()  # tracers restore the mode of this module, not the model's

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Detects objects.

        Args:
            images: (C, H, W) float32, resized, in the model's order of channels, from 0 to 255; (N, C, H, W) if batched.

        Returns:
            R detections by descending score, R may be 0: boxes (R, 4) in pixels of the input, scores (R,), classes (R,) int64. Then,
            as :func:`output_names` lists: masks (R, S, S), probabilities on a grid over the box; mask_scores (R,); keypoint_heatmaps
            (R, K, S, S), logits on a grid over the box; image (R,) int64, the image index of each detection, ascending.
        """
        images = images if self.batched else images[None]
        size = images.shape[-2:]
        features = self.model.backbone(self._preprocess(images))
        proposals = self._proposals(features, size, images.shape[0])
        rois, scores, classes = self._detections(features, proposals, size, images.shape[0])
        outputs = [self._boxes_in_input(rois[:, 1:], size), scores, classes]
        heads = self.model.roi_heads
        if heads.mask_on:
            outputs += self._masks(features, rois, scores, classes)
        if getattr(heads, "keypoint_on", False):
            maps = [features[name] for name in heads.keypoint_in_features]
            outputs.append(heads.keypoint_head.layers(pool_rois(heads.keypoint_pooler, maps, rois)))
        if self.batched:
            outputs.append(rois[:, 0].long())
        return tuple(outputs)

    def _preprocess(self, images: Tensor) -> Tensor:
        """Normalises images (N, C, H, W), then pads them with 0."""
        images = (images - self.model.pixel_mean) / self.model.pixel_std
        multiple = self.model.backbone.size_divisibility
        if multiple <= 1:
            return images
        rest = [(side + multiple - 1) // multiple * multiple - side for side in images.shape[-2:]]
        return F.pad(images, [0, rest[1], 0, rest[0]])

    def _boxes_in_input(self, boxes: Tensor, size: Any) -> Tensor:  # noqa: ARG002
        """Returns boxes (R, 4) in pixels of the input. The padded image has the same origin."""
        return boxes

    def _proposals(self, features: dict[str, Tensor], size: Any, num_images: Any) -> Tensor:
        """Returns the proposals as RoIs (P, 5), image index first."""
        rpn = self.model.proposal_generator
        maps = [features[name] for name in rpn.in_features]
        levels = (
            decode_top_anchors(
                rpn.box2box_transform,
                anchors.tensor,
                flatten_anchors(logits, 1).flatten(1),
                flatten_anchors(deltas, 4),
                rpn.pre_nms_topk[False],
                fill=True,
            )
            for logits, deltas, anchors in zip(*rpn.rpn_head(maps), rpn.anchor_generator(maps), strict=True)
        )
        return select_proposals(
            levels,
            size,
            num_images,
            min_size=rpn.min_box_size,
            nms_threshold=rpn.nms_thresh,
            limit=rpn.post_nms_topk[False],
        )

    def _detections(
        self, features: dict[str, Tensor], rois: Tensor, size: Any, num_images: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the detections: RoIs (R, 5), scores (R,) and classes (R,)."""
        boxes, probs = self._classify(features, rois, size)
        predictor = box_stages(self.model.roi_heads)[-1][1]
        return select_detections(
            rois,
            boxes,
            probs,
            size,
            num_images,
            score_threshold=predictor.test_score_thresh,
            nms_threshold=predictor.test_nms_thresh,
            limit=predictor.test_topk_per_image,
            class_agnostic=getattr(predictor, "class_agnostic_suppression", False),
        )

    def _classify(self, features: dict[str, Tensor], rois: Tensor, size: Any) -> tuple[Tensor, Tensor]:
        """Returns boxes (P, 4 * K or 4), not clipped, and probabilities (P, K + 1)."""
        heads = self.model.roi_heads

        def pool_features(boxes: Tensor) -> Tensor:
            rois_of_stage = torch.cat([rois[:, :1], boxes], dim=1)
            if isinstance(heads, Res5ROIHeads):
                return self._res5(features, rois_of_stage).mean(dim=[2, 3])
            return pool_rois(heads.box_pooler, [features[name] for name in heads.box_in_features], rois_of_stage)

        return classify_boxes(heads, rois[:, 1:], pool_features, lambda boxes: clip_boxes(boxes, image_window(size)))

    def _res5(self, features: dict[str, Tensor], rois: Tensor) -> Tensor:
        """Returns the RoI features (R, C, s, s) of ``Res5ROIHeads``."""
        heads = self.model.roi_heads
        pooled: Tensor = heads.res5(pool_rois(heads.pooler, [features[name] for name in heads.in_features], rois))
        return pooled

    def _masks(self, features: dict[str, Tensor], rois: Tensor, scores: Tensor, classes: Tensor) -> list[Tensor]:
        """Returns masks (R, S, S), and mask scores (R,) of a head that predicts them."""
        heads = self.model.roi_heads
        head = heads.mask_head
        x: Any
        if isinstance(heads, Res5ROIHeads):
            x = self._res5(features, rois)
        elif heads.mask_pooler is None:
            x = {name: features[name] for name in heads.mask_in_features}
        else:
            x = pool_rois(heads.mask_pooler, [features[name] for name in heads.mask_in_features], rois)
        if not isinstance(head, MaskHead):  # one of Detectron2's
            logits = head.layers(x)
            return [select_class(logits, classes).sigmoid()]
        prediction = head.predict(x, [make_boxes(rois[:, 1:])])
        probs = head.probs(prediction, classes)
        if not isinstance(head, MaskScoringHead):
            return [probs[:, 0]]
        iou = predict_iou(head, prediction.roi_features, probs, classes).clamp(0, 1)
        return [probs[:, 0], scores * iou]


def output_names(model: nn.Module, batched: bool = False) -> tuple[str, ...]:
    """Returns the names of the outputs of :class:`Exportable`, in their order.

    Example::

        output_names(model)  # ("boxes", "scores", "classes", "masks")
    """
    heads = model.roi_heads
    optional = {
        "masks": heads.mask_on,
        "mask_scores": heads.mask_on and isinstance(heads.mask_head, MaskScoringHead),
        "keypoint_heatmaps": getattr(heads, "keypoint_on", False),
        "image": batched,
    }
    return ("boxes", "scores", "classes", *(name for name, present in optional.items() if present))


def predict_iou(head: MaskScoringHead, roi_features: Tensor, probs: Tensor, classes: Tensor) -> Tensor:
    """Computes ``head.predict_iou`` without adaptive pooling, which ONNX lacks.

    Args:
        head: predicts the IoU of a mask with the ground truth.
        roi_features: (R, C, h, w)
        probs: (R, 1, S, S), the predicted masks.
        classes: (R,)

    Returns:
        (R,)
    """
    masks = probs
    for axis, bins in ((2, head.input_shape.height), (3, head.input_shape.width)):
        side = int(probs.shape[axis])  # depends on the head, not on the image
        edges = [(index * side // bins, -(-(index + 1) * side // bins)) for index in range(bins)]
        masks = torch.stack([masks.narrow(axis, low, high - low).amax(dim=axis) for low, high in edges], dim=axis)
    features = head.iou_convs(torch.cat([roi_features, masks], dim=1)).flatten(1)
    return select_class(head.iou_predictor(head.iou_fcs(features)), classes)


def _check_parts(model: nn.Module, supported: dict[str, tuple[type, ...]]) -> None:
    """Raises InputError if a part of a model cannot be exported."""
    for path, known in supported.items():
        part = model.get_submodule(path)
        for one in part if isinstance(part, nn.ModuleList) else [part]:  # the stages of a cascade
            if type(one) not in known:
                names = " or ".join(kind.__name__ for kind in known)
                raise InputError(
                    f"{type(one).__name__} cannot be exported: model{'.' * bool(path)}{path} must be a {names}"
                )
            if isinstance(one, BoxPredictor) and not one.suppresses_by_box_iou:
                raise InputError(
                    "an exported model suppresses by box IoU only: set model.roi_heads.box_predictor.suppression=hard "
                    "model.roi_heads.box_predictor.use_maskness=false"
                )
    if getattr(model.backbone, "padding_constraints", {}).get("square_size"):
        raise InputError(
            f"{type(model.backbone).__name__} cannot be exported: it takes only squares of one size, as ViTDet does"
        )
    heads = model.roi_heads
    for name, part in heads.named_modules():
        if isinstance(part, PreciseROIPooler | DeformableROIPooler):
            raise InputError(
                f"{type(part).__name__} cannot be exported: how much it computes depends on the boxes, and a tracer records one example; "
                f"use another pooler for model.roi_heads.{name}"
            )
    mask_head, keypoint_head = getattr(heads, "mask_head", None), getattr(heads, "keypoint_head", None)
    if not isinstance(mask_head, BaseMaskRCNNHead | None):
        raise InputError(
            f"{type(mask_head).__name__} cannot be exported: it is not a mask head of Detectron2 or maskrcnn_ext"
        )
    if not isinstance(keypoint_head, KRCNNConvDeconvUpsampleHead | None):
        raise InputError(
            f"{type(keypoint_head).__name__} cannot be exported: it is not Detectron2's KRCNNConvDeconvUpsampleHead"
        )


def _check_batch_support(model: nn.Module) -> None:
    """Raises InputError if a part of a model takes the RoIs of one image only."""
    heads = model.roi_heads
    for name in ("pooler", "box_pooler", "mask_pooler", "keypoint_pooler"):
        pooler = getattr(heads, name, None)
        if pooler is not None and not supports_batches(pooler):
            raise InputError(
                f"--batch: {type(pooler).__name__} (model.roi_heads.{name}) is exported for one image at a time"
            )
    if heads.mask_on and not isinstance(heads, Res5ROIHeads) and heads.mask_pooler is None:
        raise InputError(
            f"--batch: {type(heads.mask_head).__name__}, which samples the feature maps itself, is exported for one image at a time"
        )
