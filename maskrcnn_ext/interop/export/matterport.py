"""The selections of boxes of models from Keras's Mask R-CNN (Matterport), as tensors alone."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from maskrcnn_ext.interop.export.graph import Exportable
from maskrcnn_ext.interop.export.pooling import pool
from maskrcnn_ext.modeling.mask_heads.targets import select_class
from maskrcnn_ext.modeling.matterport.boxes import inclusive
from maskrcnn_ext.modeling.matterport.frame import STRIDE, centred
from maskrcnn_ext.modeling.matterport.rcnn import LetterboxRCNN
from maskrcnn_ext.modeling.matterport.roi_heads import MatterportOutputLayers, MatterportROIHeads
from maskrcnn_ext.modeling.matterport.rpn import MatterportRPN
from maskrcnn_ext.modeling.tensor_inference import (
    clip_boxes,
    first_of_each_image,
    flatten_anchors,
    image_window,
    is_finite,
    nms,
    separate_groups,
)


class MatterportExportable(Exportable):
    """A :class:`LetterboxRCNN`, which sees its images in the middle of a canvas; boxes are in pixels of the images.

    Overlaps are computed in float32 here, in float64 there.
    """

    stated: ClassVar[dict[str, tuple[type, ...]]] = {
        "": (LetterboxRCNN,),
        "proposal_generator": (MatterportRPN,),
        "roi_heads": (MatterportROIHeads,),
        "roi_heads.box_predictor": (MatterportOutputLayers,),
    }

    def _canvas(self, size: Any) -> list[Any]:
        return [_at_least((side + STRIDE - 1) // STRIDE * STRIDE, self.model.square_size) for side in size]

    def _batch(self, images: Tensor) -> Tensor:
        size = images.shape[-2:]
        height, width = self._canvas(size)
        x0, y0, x1, y1 = centred(size, (height, width))
        images = F.pad(images, [x0, width - x1, y0, height - y1])
        return (images - self.model.pixel_mean) / self.model.pixel_std

    def _boxes(self, boxes: Tensor, size: Any) -> Tensor:
        x0, y0, *_ = centred(size, self._canvas(size))
        return torch.stack([boxes[:, 0] - x0, boxes[:, 1] - y0, boxes[:, 2] - x0, boxes[:, 3] - y0], dim=1)

    def _proposals(self, features: dict[str, Tensor], size: Any, num_images: Any) -> Tensor:
        """Returns RoIs (P, 5): of an image's all levels the best, without those that others cover."""
        rpn = self.model.proposal_generator
        canvas = self._canvas(size)
        maps = [features[name] for name in rpn.in_features]
        all_logits, all_deltas = rpn.rpn_head(maps)
        anchors = torch.cat([level.tensor for level in rpn.anchor_generator(maps)])
        scores = torch.cat([flatten_anchors(logits, 1).flatten(1) for logits in all_logits], dim=1).sigmoid()
        deltas = torch.cat([flatten_anchors(level, 4) for level in all_deltas], dim=1)
        best = _ranked(scores)[:, : rpn.pre_nms_topk[False]]
        numbers = torch.arange(num_images, device=scores.device)[:, None]
        own = (best + numbers * scores.shape[1]).flatten()
        boxes = rpn.box2box_transform.apply_deltas(deltas.flatten(0, 1)[own], anchors[best.flatten()])
        images, scores = numbers.expand(-1, best.shape[1]).flatten(), scores.flatten()[own]
        finite = is_finite(boxes).all(dim=1) & is_finite(scores)
        boxes, images, scores = (
            clip_boxes(boxes[finite], image_window(canvas), min_length=1),
            images[finite],
            scores[finite],
        )
        keep = nms(separate_groups(inclusive(boxes), images, canvas), scores, rpn.nms_thresh)
        keep = keep[first_of_each_image(images[keep], rpn.post_nms_topk[False], num_images)]
        return torch.cat([images[keep, None].to(boxes.dtype), boxes[keep]], dim=1)

    def _detections(
        self, features: dict[str, Tensor], rois: Tensor, size: Any, num_images: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of each proposal the likeliest class, unless it is the background, within the photograph."""
        heads, predictor, canvas = self.model.roi_heads, self.model.roi_heads.box_predictor, self._canvas(size)
        maps = [features[name] for name in heads.box_in_features]
        logits, deltas = predictor(heads.box_head(pool(heads.box_pooler, maps, rois)))
        boxes = predictor.box2box_transform.apply_deltas(deltas, rois[:, 1:])
        scores, classes = logits.softmax(dim=1).max(dim=1)
        chosen = ((classes < predictor.num_classes) & (scores >= predictor.test_score_thresh)).nonzero()[:, 0]
        scores, classes, images = scores[chosen], classes[chosen], rois[chosen, 0]
        boxes = select_class(boxes.reshape(-1, int(boxes.shape[1]) // 4, 4)[chosen], classes)
        boxes = clip_boxes(boxes, centred(size, canvas), min_length=1)
        groups = images * predictor.num_classes + classes
        keep = nms(separate_groups(inclusive(boxes), groups, canvas), scores, predictor.test_nms_thresh)
        keep = keep[first_of_each_image(images[keep], predictor.test_topk_per_image, num_images)]
        return torch.cat([images[keep, None], boxes[keep]], dim=1), scores[keep], classes[keep]


def _at_least(side: Any, least: int) -> Any:
    """The greater one, of a number that a tracer may follow."""
    if not least:
        return side
    return side.clamp(min=least) if isinstance(side, Tensor) else torch.sym_max(side, least)


def _ranked(scores: Tensor) -> Tensor:
    """Places in (N, A) by descending score; of equal ones the first is the first, as ONNX's TopK has it and PyTorch's has not."""
    if torch.onnx.is_in_onnx_export():
        return scores.argsort(dim=1, descending=True)
    return scores.argsort(dim=1, descending=True, stable=True)
