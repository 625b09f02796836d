"""A GeneralizedRCNN as a function of tensors, which can be traced: one image in, its detections out, nothing pasted."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torchvision
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.roi_heads import (
    CascadeROIHeads,
    FastRCNNOutputLayers,
    KRCNNConvDeconvUpsampleHead,
    Res5ROIHeads,
    StandardROIHeads,
)
from detectron2.modeling.roi_heads.mask_head import BaseMaskRCNNHead
from detectron2.structures import Boxes
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.modeling.compact_rcnn import CompactRCNN
from maskrcnn_ext.modeling.mask_heads.base import MaskHead
from maskrcnn_ext.modeling.mask_heads.mask_scoring import MaskScoringHead
from maskrcnn_ext.modeling.poolers.deformable import DeformableROIPooler
from maskrcnn_ext.modeling.poolers.fast import FastROIPooler
from maskrcnn_ext.modeling.poolers.precise import PreciseROIPooler

# What is stated anew here: a subclass may compute something else.
_STATED = {
    "": (GeneralizedRCNN, CompactRCNN),
    "proposal_generator": (RPN,),
    "roi_heads": (StandardROIHeads, CascadeROIHeads, Res5ROIHeads),
}


class Exportable(nn.Module):
    """Detectron2's inference on one image, box for box, without what a tracer cannot follow.

    Detectron2 loops over images, turns tensors into numbers and branches on them; here is the same arithmetic on tensors alone. Every
    part of the model but the two selections of boxes is called as it is.
    """

    def __init__(self, model: nn.Module) -> None:
        """Takes a model apart.

        Args:
            model: a GeneralizedRCNN in evaluation mode.

        Raises:
            InputError: it has a part whose selection of boxes is its own.
        """
        super().__init__()
        _check(model)
        self.model = model
        self.eval()  # the tracers put everything back into the mode that this module was in

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Detects.

        Args:
            image: (C, H, W) float32, resized, in the model's order of channels, from 0 to 255.

        Returns:
            Of R detections by descending score, R may be 0: boxes (R, 4) in pixels of `image`, scores (R,), classes (R,) int64; then,
            as :func:`output_names` tells, masks (R, S, S), probabilities on a grid over the box; mask_scores (R,); keypoint_heatmaps
            (R, K, S, S), logits on a grid over the box.
        """
        size = image.shape[-2:]
        features = self.model.backbone(self._batch(image)[None])
        proposals = self._proposals(features, size)
        boxes, scores, classes = self._detections(features, proposals, size)
        outputs = [boxes, scores, classes]
        heads = self.model.roi_heads
        if heads.mask_on:
            outputs += self._masks(features, boxes, scores, classes)
        if getattr(heads, "keypoint_on", False):
            maps = [features[name] for name in heads.keypoint_in_features]
            outputs.append(heads.keypoint_head.layers(pool(heads.keypoint_pooler, maps, boxes)))
        return tuple(outputs)

    def _batch(self, image: Tensor) -> Tensor:
        """Normalises, then pads with 0."""
        image = (image - self.model.pixel_mean) / self.model.pixel_std
        multiple = self.model.backbone.size_divisibility
        if multiple > 1:
            height, width = image.shape[-2:]
            rest = [(side + multiple - 1) // multiple * multiple - side for side in (height, width)]
            image = F.pad(image, [0, rest[1], 0, rest[0]])
        return image

    def _proposals(self, features: dict[str, Tensor], size: Any) -> Tensor:
        """Returns (P, 4) by descending objectness: of every level the best, without those that others of the level cover."""
        rpn = self.model.proposal_generator
        maps = [features[name] for name in rpn.in_features]
        before, after = rpn.pre_nms_topk[False], rpn.post_nms_topk[False]
        kept_boxes, kept_scores = [], []
        for logits, deltas, anchors in zip(*rpn.rpn_head(maps), rpn.anchor_generator(maps), strict=True):
            # As many in every image, so that no count depends on its size: what is filled up is invalid below.
            flat = logits[0].permute(1, 2, 0).flatten()
            scores, index = F.pad(flat, (0, before), value=-math.inf).topk(before)
            index = index % flat.shape[0]
            deltas = deltas[0].reshape(-1, 4, *deltas.shape[2:]).permute(2, 3, 0, 1).flatten(0, 2)
            boxes = clip(rpn.box2box_transform.apply_deltas(deltas[index], anchors.tensor[index]), size)
            sides = boxes[:, 2:] - boxes[:, :2]
            # Not a number is not more than anything, and infinite times nothing is not a number.
            valid = (sides > rpn.min_box_size).all(dim=1) & (scores * 0 == 0)
            boxes, scores = boxes[valid], scores[valid]
            keep = torchvision.ops.nms(boxes, scores, rpn.nms_thresh)
            kept_boxes.append(boxes[keep])
            kept_scores.append(scores[keep])
        order = torch.cat(kept_scores).argsort(descending=True)[:after]
        return torch.cat(kept_boxes)[order]

    def _detections(self, features: dict[str, Tensor], proposals: Tensor, size: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Returns boxes (R, 4), scores (R,) and classes (R,)."""
        heads = self.model.roi_heads
        if isinstance(heads, CascadeROIHeads):
            boxes, probs = self._cascade(features, proposals, size)
            predictor = heads.box_predictor[-1]
        else:
            predictor = heads.box_predictor
            if isinstance(heads, Res5ROIHeads):
                pooled = self._res5(features, proposals).mean(dim=[2, 3])
            else:
                maps = [features[name] for name in heads.box_in_features]
                pooled = heads.box_head(pool(heads.box_pooler, maps, proposals))
            logits, deltas = predictor(pooled)
            boxes, probs = predictor.box2box_transform.apply_deltas(deltas, proposals), _probs(predictor, logits)
        return select(boxes, probs, predictor, size)

    def _cascade(self, features: dict[str, Tensor], boxes: Tensor, size: Any) -> tuple[Tensor, Tensor]:
        heads = self.model.roi_heads
        maps = [features[name] for name in heads.box_in_features]
        probs = []
        for stage, (head, predictor) in enumerate(zip(heads.box_head, heads.box_predictor, strict=True)):
            boxes = clip(boxes, size) if stage else boxes
            logits, deltas = predictor(head(pool(heads.box_pooler, maps, boxes)))
            probs.append(_probs(predictor, logits))
            boxes = predictor.box2box_transform.apply_deltas(deltas, boxes)
        return boxes, torch.stack(probs).mean(dim=0)

    def _res5(self, features: dict[str, Tensor], boxes: Tensor) -> Tensor:
        heads = self.model.roi_heads
        pooled: Tensor = heads.res5(pool(heads.pooler, [features[name] for name in heads.in_features], boxes))
        return pooled

    def _masks(self, features: dict[str, Tensor], boxes: Tensor, scores: Tensor, classes: Tensor) -> list[Tensor]:
        heads = self.model.roi_heads
        head = heads.mask_head
        x: Any
        if isinstance(heads, Res5ROIHeads):
            x = self._res5(features, boxes)
        elif heads.mask_pooler is None:
            x = {name: features[name] for name in heads.mask_in_features}
        else:
            x = pool(heads.mask_pooler, [features[name] for name in heads.mask_in_features], boxes)
        if not isinstance(head, MaskHead):  # Detectron2's own
            logits = head.layers(x)
            return [own_channel(logits, classes).sigmoid()]
        prediction = head.predict(x, [Boxes(boxes)])
        probs = head.probs(prediction, classes)
        if not isinstance(head, MaskScoringHead):
            return [probs[:, 0]]
        iou = predict_iou(head, prediction.roi_features, probs, classes).clamp(0, 1)
        return [probs[:, 0], scores * iou]


def output_names(model: nn.Module) -> tuple[str, ...]:
    """Names of what :class:`Exportable` returns for a model, in its order."""
    heads = model.roi_heads
    optional = {
        "masks": heads.mask_on,
        "mask_scores": heads.mask_on and isinstance(heads.mask_head, MaskScoringHead),
        "keypoint_heatmaps": getattr(heads, "keypoint_on", False),
    }
    return ("boxes", "scores", "classes", *(name for name, there in optional.items() if there))


def clip(boxes: Tensor, size: Any) -> Tensor:
    """Cuts (..., 4) off at the borders of an image of ``size``, height and width."""
    x, y = (boxes[..., axis::2].clamp(min=0).clamp(max=size[1 - axis]) for axis in (0, 1))
    return torch.stack([x[..., 0], y[..., 0], x[..., 1], y[..., 1]], dim=-1)


def select(boxes: Tensor, probs: Tensor, predictor: FastRCNNOutputLayers, size: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Detectron2's ``fast_rcnn_inference`` of one image.

    Args:
        boxes: (R, 4 * K) or (R, 4).
        probs: (R, K + 1), background last.
        predictor: has the thresholds.
        size: of the image.

    Returns:
        Boxes (D, 4), scores (D,) and classes (D,) of D detections.
    """
    finite = (boxes * 0 == 0).all(dim=1) & (probs * 0 == 0).all(dim=1)
    chosen = (probs[:, :-1] > predictor.test_score_thresh) & finite[:, None]
    roi, classes = chosen.nonzero().unbind(1)
    scores = probs[roi, classes]
    boxes = clip(boxes.reshape(-1, int(boxes.shape[1]) // 4, 4), size)
    boxes = boxes[roi, classes] if boxes.shape[1] > 1 else boxes[roi, 0]
    # Classes are moved apart, so that they do not suppress each other. On a square grid, not in a row: the farther from the origin, the
    # less exact is a float32.
    columns = math.isqrt(probs.shape[1] - 1) + 1
    column = classes % columns
    place = torch.stack([column, (classes - column) // columns], dim=1).to(boxes.dtype)
    extent = size[0] + size[1]
    keep = torchvision.ops.nms(boxes + (place * extent).repeat(1, 2), scores, predictor.test_nms_thresh)
    if predictor.test_topk_per_image >= 0:
        keep = keep[: predictor.test_topk_per_image]
    return boxes[keep], scores[keep], classes[keep]


def pool(pooler: ROIPooler, maps: list[Tensor], boxes: Tensor) -> Tensor:
    """Pools (M, 4) boxes from the feature maps of one image: (M, C, h, w)."""
    if type(pooler) not in (
        ROIPooler,
        FastROIPooler,
    ):  # which give the same; the fast one's operator is known to PyTorch alone
        return pooler(maps, [Boxes(boxes)])
    rois = F.pad(boxes, (1, 0))
    if len(maps) == 1:
        return pooler.level_poolers[0](maps[0], rois)
    sides = boxes[:, 2:] - boxes[:, :2]
    size = (sides[:, 0] * sides[:, 1]).sqrt() / pooler.canonical_box_size
    # Detectron2's assign_boxes_to_levels, whose Boxes ask whether there are any.
    levels = (pooler.canonical_level + (size + 1e-8).log2()).floor().clamp(pooler.min_level, pooler.max_level)
    parts, places = [], []
    for level, (level_pooler, level_map) in enumerate(zip(pooler.level_poolers, maps, strict=True)):
        own = (levels == pooler.min_level + level).nonzero()[:, 0]
        parts.append(level_pooler(level_map, rois[own]))
        places.append(own)
    pooled = torch.cat(parts)[torch.cat(places).argsort()]
    return pooled.reshape(-1, maps[0].shape[1], *pooler.output_size)  # so that tracers know the size


def own_channel(logits: Tensor, classes: Tensor) -> Tensor:
    """Of (R, K, ...) or (R, 1, ...) the channel of every RoI's class: (R, ...)."""
    if logits.shape[1] == 1:
        return logits[:, 0]
    return logits[torch.arange(logits.shape[0], device=logits.device), classes]


def predict_iou(head: MaskScoringHead, roi_features: Tensor, probs: Tensor, classes: Tensor) -> Tensor:
    """``head.predict_iou`` with a pooling that ONNX has: it has no adaptive one."""
    masks = probs
    for axis, bins in ((2, head.input_shape.height), (3, head.input_shape.width)):
        side = int(probs.shape[axis])  # a constant of the head, not of the image
        edges = [(index * side // bins, -(-(index + 1) * side // bins)) for index in range(bins)]
        masks = torch.stack([masks.narrow(axis, low, high - low).amax(dim=axis) for low, high in edges], dim=axis)
    features = head.iou_convs(torch.cat([roi_features, masks], dim=1)).flatten(1)
    return own_channel(head.iou_predictor(head.iou_fcs(features)), classes)


@contextmanager
def tracing(model: nn.Module) -> Iterator[None]:
    """Lets tracers see how long the tensors are that the model's parts ask ``len`` of, which otherwise becomes a constant."""
    from detectron2.export.torchscript_patch import patch_builtin_len

    modules = {kind.__module__ for module in model.modules() for kind in type(module).__mro__}
    modules |= {"maskrcnn_ext.modeling.mask_heads.targets", "detectron2.projects.point_rend.point_features"}
    with patch_builtin_len(
        sorted(name for name in modules if name.startswith(("maskrcnn_ext.modeling", "detectron2.projects")))
    ):
        yield


@contextmanager
def quiet() -> Iterator[None]:
    """Leaves out what tracers say of every number that they make a constant of: whether it matters, ``verify`` measures."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def example(model: nn.Module) -> Tensor:
    """An image to trace a model with: noise, so that something is found, of a size that tells height and width apart."""
    generator = torch.Generator().manual_seed(0)
    shape = (len(model.pixel_mean), 320, 448)
    return (torch.rand(shape, generator=generator) * 255).to(model.device)


def _probs(predictor: FastRCNNOutputLayers, logits: Tensor) -> Tensor:
    return logits.sigmoid() if getattr(predictor, "use_sigmoid_ce", False) else logits.softmax(dim=1)


def _check(model: nn.Module) -> None:
    for path, known in _STATED.items():
        part = model.get_submodule(path)
        if type(part) not in known:
            names = " or ".join(kind.__name__ for kind in known)
            raise InputError(
                f"{type(part).__name__} cannot be exported: model{'.' * bool(path)}{path} has to be a {names}"
            )
    heads = model.roi_heads
    predictors = heads.box_predictor if isinstance(heads.box_predictor, nn.ModuleList) else [heads.box_predictor]
    for predictor in predictors:
        if type(predictor) is not FastRCNNOutputLayers:
            raise InputError(
                f"{type(predictor).__name__} cannot be exported: model.roi_heads.box_predictor has to be FastRCNNOutputLayers"
            )
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
