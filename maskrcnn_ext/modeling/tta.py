"""Test-time augmentation: what a model finds in an image, its mirror image and other sizes of it, merged into one answer."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from detectron2.layers import batched_nms
from detectron2.modeling.roi_heads.keypoint_head import keypoint_rcnn_inference
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.modeling.compact_rcnn import CompactRCNN

# What is predicted for given boxes, on grids over the box, whose last dimension a mirror turns around; and numbers.
_GRIDS, _NUMBERS = ("pred_masks", "pred_keypoint_heatmaps"), ("pred_mask_scores",)


class View(NamedTuple):
    """An image in another size, mirrored or not; heights and widths in pixels."""

    size: tuple[int, int]
    flip: bool

    def see(self, image: Tensor) -> Tensor:
        """Makes the view (C, h, w) of an image (C, H, W); float32 where the size changes, smoothed where it shrinks."""
        if image.shape[-2:] != self.size:
            image = F.interpolate(image[None].float(), self.size, mode="bilinear", antialias=True)[0]
        return image.flip(-1) if self.flip else image

    def to_view(self, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """Moves boxes (R, 4) of the image, of `size`, into the view."""
        boxes = boxes * _ratio(boxes, self.size, size)
        return _mirrored(boxes, self.size[1]) if self.flip else boxes

    def to_image(self, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """Moves boxes (R, 4) of the view into the image, of `size`."""
        boxes = _mirrored(boxes, self.size[1]) if self.flip else boxes
        return boxes * _ratio(boxes, size, self.size)


class TTARCNN(CompactRCNN):
    """CompactRCNN with test-time augmentation: ``model._target_=maskrcnn_ext.TTARCNN`` for any trained model.

    Boxes are found in every view of an image, each at one of the scales, mirrored or not; non-maximum suppression with the model's own
    settings merges them, as in Detectron2's GeneralizedRCNNWithTTA. Masks and keypoints of the merged boxes are then predicted in every
    view: probabilities of masks and mask scores are averaged, and of keypoints the heatmaps' logits, before the best place is looked
    for (``HM_AVG`` of the first Detectron). Averaged places would lie between two candidates where the views disagree.

    Parameters have the names of GeneralizedRCNN's, so that every checkpoint loads, and training is the same. Each view is seen alone,
    twice where there are masks or keypoints, so that memory does not grow with their number.

    A mirror exchanges left and right: leave ``tta_flip`` off where classes differ by that alone.
    """

    def __init__(
        self,
        *,
        backbone: nn.Module,
        proposal_generator: nn.Module,
        roi_heads: nn.Module,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        input_format: str | None = None,
        vis_period: int = 0,
        tta_scales: Sequence[float] = (0.75, 1.0, 1.25),
        tta_flip: bool = True,
        tta_keypoint_flip_indices: Sequence[int] | None = None,
    ) -> None:
        """Takes GeneralizedRCNN's arguments and those of the views.

        Args:
            backbone: see GeneralizedRCNN.
            proposal_generator: as above; needed here.
            roi_heads: as above.
            pixel_mean: as above.
            pixel_std: as above.
            input_format: as above.
            vis_period: as above.
            tta_scales: sizes of the views, relative to the image that the model is given, which the mapper has resized.
            tta_flip: see each size mirrored too.
            tta_keypoint_flip_indices: which keypoint each one becomes in a mirrored image, as the mapper's ``keypoint_hflip_indices``.

        Raises:
            InputError: scales that are none, no proposal generator, or flip indices that the keypoint head needs and does not have.
        """
        super().__init__(
            backbone=backbone,
            proposal_generator=proposal_generator,
            roi_heads=roi_heads,
            pixel_mean=pixel_mean,
            pixel_std=pixel_std,
            input_format=input_format,
            vis_period=vis_period,
        )
        self.tta_scales = [float(scale) for scale in tta_scales]
        self.tta_flip = tta_flip
        self.tta_keypoint_flip_indices = list(tta_keypoint_flip_indices or [])
        if not self.tta_scales or not all(0 < scale < float("inf") for scale in self.tta_scales):
            raise InputError(f"model.tta_scales={self.tta_scales}: expected factors above 0, such as [0.75,1.0,1.25]")
        if proposal_generator is None:
            raise InputError("TTARCNN needs model.proposal_generator: proposals of one view are none of another")
        if tta_flip and _has(roi_heads, "keypoint_on"):
            self._check_flip_indices(roi_heads.keypoint_head.num_keypoints)

    def inference(
        self,
        batched_inputs: list[dict[str, Any]],
        detected_instances: list[Instances] | None = None,
        do_postprocess: bool = True,
    ) -> list[Any]:
        """As in CompactRCNN; raw results are in the frame of the image that was given, whatever the views."""
        if self.tta_scales == [1.0] and not self.tta_flip:
            return super().inference(batched_inputs, detected_instances, do_postprocess)
        given: Sequence[Instances | None] = detected_instances or [None] * len(batched_inputs)
        results = [self._predict(image["image"], boxes) for image, boxes in zip(batched_inputs, given, strict=True)]
        return self.compact(batched_inputs, results) if do_postprocess else results

    def _predict(self, image: Tensor, given: Instances | None) -> Instances:
        """Raw results of one image (C, H, W)."""
        image = image.to(self.device)
        size = (int(image.shape[1]), int(image.shape[2]))
        sizes = [(max(1, round(size[0] * scale)), max(1, round(size[1] * scale))) for scale in self.tta_scales]
        views = [View(own, flip) for own in sizes for flip in ([False, True] if self.tta_flip else [False])]
        found = self._detect(image, views) if given is None else given.to(self.device)
        if _has(self.roi_heads, "mask_on") or _has(self.roi_heads, "keypoint_on"):
            self._complete(found, image, views)
        return found

    def _detect(self, image: Tensor, views: Sequence[View]) -> Instances:
        """Boxes of all views, merged."""
        size = (int(image.shape[1]), int(image.shape[2]))
        # A copy that shares all weights: the model itself may be in use by another thread.
        boxes_only = copy.copy(self.roi_heads)
        boxes_only.mask_on = boxes_only.keypoint_on = False
        parts = []
        for view in views:
            images = self._batch_of(image, view)
            features = self.backbone(images.tensor)
            proposals, _ = self.proposal_generator(images, features, None)
            (part,), _ = boxes_only(images, features, proposals, None)
            moved = Boxes(view.to_image(part.pred_boxes.tensor, size))
            moved.clip(size)
            parts.append(Instances(size, pred_boxes=moved, scores=part.scores, pred_classes=part.pred_classes))
        found = Instances.cat(parts)
        predictor = self.roi_heads.box_predictor
        # Of a cascade, the last stage's settings hold.
        predictor = predictor[-1] if isinstance(predictor, nn.ModuleList) else predictor
        kept = batched_nms(found.pred_boxes.tensor, found.scores, found.pred_classes, predictor.test_nms_thresh)
        limit = predictor.test_topk_per_image
        return found[kept[:limit] if limit >= 0 else kept]

    def _complete(self, found: Instances, image: Tensor, views: Sequence[View]) -> None:
        """Adds what the heads predict for the boxes, averaged over the views."""
        size = (int(image.shape[1]), int(image.shape[2]))
        known = {name: found.get(name) for name in ("scores", "pred_classes") if found.has(name)}
        sums: dict[str, Tensor] = {}
        for view in views:
            boxes = Boxes(view.to_view(found.pred_boxes.tensor, size))
            seen = Instances(view.size, pred_boxes=boxes, **known)
            features = self.backbone(self._batch_of(image, view).tensor)
            (seen,) = self.roi_heads.forward_with_given_boxes(features, [seen])
            for name in (*_GRIDS, *_NUMBERS):
                if seen.has(name):
                    value = seen.get(name)
                    if view.flip and name in _GRIDS:
                        value = value.flip(-1)
                    if view.flip and name == "pred_keypoint_heatmaps":
                        value = value[:, self.tta_keypoint_flip_indices]
                    sums[name] = sums[name] + value if name in sums else value
        for name, total in sums.items():
            found.set(name, total / len(views))
        if "pred_keypoint_heatmaps" in sums:
            keypoint_rcnn_inference(found.pred_keypoint_heatmaps, [found])

    def _batch_of(self, image: Tensor, view: View) -> ImageList:
        """The view of an image (C, H, W), normalised and padded.

        Raises:
            InputError: the backbone takes images of one size, and the view is larger.
        """
        images = self.preprocess_image([{"image": view.see(image)}])
        height, width = images.tensor.shape[-2:]
        if height < view.size[0] or width < view.size[1]:
            raise InputError(
                f"model.tta_scales={self.tta_scales}: a view of {view.size[1]} x {view.size[0]} does not fit into the {width} x {height} "
                "that the backbone pads images to"
            )
        return images

    def _check_flip_indices(self, num_keypoints: int) -> None:
        indices = self.tta_keypoint_flip_indices
        pairs_up = sorted(indices) == list(range(num_keypoints)) and all(indices[indices[i]] == i for i in indices)
        if not pairs_up:
            raise InputError(
                f"model.tta_keypoint_flip_indices={indices}: expected which of the {num_keypoints} keypoints each one becomes in a mirror "
                "image (maskrcnn_ext.data.registry.keypoints.hflip_indices gives it), or set model.tta_flip=false"
            )


def _has(roi_heads: nn.Module, head: str) -> bool:
    return bool(getattr(roi_heads, head, False))


def _ratio(boxes: Tensor, new: tuple[int, int], old: tuple[int, int]) -> Tensor:
    x, y = new[1] / old[1], new[0] / old[0]
    return boxes.new_tensor([x, y, x, y])


def _mirrored(boxes: Tensor, width: int) -> Tensor:
    """Boxes (R, 4) as a mirror shows them in an image of that width."""
    x0, y0, x1, y1 = boxes.unbind(1)
    return torch.stack([width - x1, y0, width - x0, y1], dim=1)
