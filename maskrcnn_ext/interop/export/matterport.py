"""Traceable inference of models imported from Keras's Mask R-CNN (Matterport)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from maskrcnn_ext.interop.export.graph import Exportable
from maskrcnn_ext.interop.export.pooling import pool_rois
from maskrcnn_ext.modeling.list_selection import first_of_each_image, nms, separate_groups
from maskrcnn_ext.modeling.mask_heads.ground_truth import select_class
from maskrcnn_ext.modeling.matterport.boxes import inclusive
from maskrcnn_ext.modeling.matterport.rcnn import STRIDE, LetterboxRCNN, centred
from maskrcnn_ext.modeling.matterport.roi_heads import MatterportOutputLayers, MatterportROIHeads
from maskrcnn_ext.modeling.matterport.rpn import MatterportRPN
from maskrcnn_ext.modeling.tensor_inference import clip_boxes, flatten_anchors, image_window, is_finite


class MatterportExportable(Exportable):
    """Computes the inference of a :class:`LetterboxRCNN`, whose images are centred on a canvas.

    Returned boxes are in pixels of the images. Overlaps are computed in float32, whereas the model in PyTorch uses float64.
    """

    supported: ClassVar[dict[str, tuple[type, ...]]] = {
        "": (LetterboxRCNN,),
        "proposal_generator": (MatterportRPN,),
        "roi_heads": (MatterportROIHeads,),
        "roi_heads.box_predictor": (MatterportOutputLayers,),
    }

    def _canvas_size(self, size: Any) -> list[Any]:
        """Returns height and width of the canvas for images of a size."""
        return [_max_of((side + STRIDE - 1) // STRIDE * STRIDE, self.model.square_size) for side in size]

    def _preprocess(self, images: Tensor) -> Tensor:
        """Pads images (N, C, H, W) on all sides with 0, then normalises them."""
        size = images.shape[-2:]
        height, width = self._canvas_size(size)
        x0, y0, x1, y1 = centred(size, (height, width))
        images = F.pad(images, [x0, width - x1, y0, height - y1])
        return (images - self.model.pixel_mean) / self.model.pixel_std

    def _boxes_in_input(self, boxes: Tensor, size: Any) -> Tensor:
        """Returns boxes (R, 4) of the canvas in pixels of the input."""
        x0, y0, *_ = centred(size, self._canvas_size(size))
        return torch.stack([boxes[:, 0] - x0, boxes[:, 1] - y0, boxes[:, 2] - x0, boxes[:, 3] - y0], dim=1)

    def _proposals(self, features: dict[str, Tensor], size: Any, num_images: Any) -> Tensor:
        """Returns the proposals as RoIs (P, 5); all levels of an image compete in one non-maximum suppression."""
        rpn = self.model.proposal_generator
        canvas = self._canvas_size(size)
        maps = [features[name] for name in rpn.in_features]
        all_logits, all_deltas = rpn.rpn_head(maps)
        anchors = torch.cat([level.tensor for level in rpn.anchor_generator(maps)])
        scores = torch.cat([flatten_anchors(logits, 1).flatten(1) for logits in all_logits], dim=1).sigmoid()
        deltas = torch.cat([flatten_anchors(level, 4) for level in all_deltas], dim=1)
        best = _rank(scores)[:, : rpn.pre_nms_topk[False]]
        numbers = torch.arange(num_images, device=scores.device)[:, None]
        rows = (best + numbers * scores.shape[1]).flatten()
        boxes = rpn.box2box_transform.apply_deltas(deltas.flatten(0, 1)[rows], anchors[best.flatten()])
        images, scores = numbers.expand(-1, best.shape[1]).flatten(), scores.flatten()[rows]
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
        """Returns one detection for each proposal whose most probable class is not the background, clipped to its image."""
        heads, predictor, canvas = self.model.roi_heads, self.model.roi_heads.box_predictor, self._canvas_size(size)
        maps = [features[name] for name in heads.box_in_features]
        logits, deltas = predictor(heads.box_head(pool_rois(heads.box_pooler, maps, rois)))
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


def _max_of(side: Any, minimum: int) -> Any:
    """Returns the larger of a number, which a tracer may follow, and a minimum."""
    if not minimum:
        return side
    return side.clamp(min=minimum) if isinstance(side, Tensor) else torch.sym_max(side, minimum)


def _rank(scores: Tensor) -> Tensor:
    """Returns places in (N, A) by descending score; equal scores keep their order."""
    if torch.onnx.is_in_onnx_export():
        return scores.argsort(dim=1, descending=True)  # ONNX's TopK keeps the order anyway, and has no argument for it
    return scores.argsort(dim=1, descending=True, stable=True)
