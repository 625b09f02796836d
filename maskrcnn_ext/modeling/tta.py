"""Test-time augmentation: detections in an image, its mirror image and other sizes of it, merged into one result."""

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
from maskrcnn_ext.modeling.box_predictor import BoxPredictor
from maskrcnn_ext.modeling.compact_rcnn import CompactRCNN

# Predictions for given boxes: grids over the box, whose last dimension is flipped with the image, and numbers.
_GRIDS, _NUMBERS = ("pred_masks", "pred_keypoint_heatmaps"), ("pred_mask_scores",)


class AugmentedView(NamedTuple):
    """An image in another size, mirrored or not; heights and widths in pixels."""

    size: tuple[int, int]
    flip: bool

    def transform_image(self, image: Tensor) -> Tensor:
        """Returns the view (C, h, w) of an image (C, H, W). A resized view is float32; shrinking is anti-aliased."""
        if image.shape[-2:] != self.size:
            image = F.interpolate(image[None].float(), self.size, mode="bilinear", antialias=True)[0]
        return image.flip(-1) if self.flip else image

    def to_view(self, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """Returns boxes (R, 4) of the image, which has the given size, in the view."""
        boxes = boxes * _ratio(boxes, self.size, size)
        return _mirrored(boxes, self.size[1]) if self.flip else boxes

    def to_image(self, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """Returns boxes (R, 4) of the view in the image, which has the given size."""
        boxes = _mirrored(boxes, self.size[1]) if self.flip else boxes
        return boxes * _ratio(boxes, size, self.size)


class TTARCNN(CompactRCNN):
    """CompactRCNN with test-time augmentation, for any trained model.

    Boxes are detected in each view of an image: at each scale, mirrored or not. Non-maximum suppression with the settings of the model
    merges them, as in Detectron2's GeneralizedRCNNWithTTA. Masks and keypoints of the merged boxes are then predicted in each view. Mask
    probabilities, mask scores and the logits of keypoint heatmaps are averaged. Keypoints are located in the averaged heatmap (``HM_AVG``
    of the first Detectron), because averaged positions would be between two candidates if views disagree.

    Parameters have the names of GeneralizedRCNN, so that every checkpoint loads, and training is the same. Views are processed one by one,
    twice for masks or keypoints, so that memory does not grow with their number.

    A mirror image exchanges left and right: set ``tta_flip`` to false if classes differ only in that.

    Example::

        model._target_=maskrcnn_ext.TTARCNN model.tta_scales=[0.75,1.0,1.25]
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
        """Builds the model from GeneralizedRCNN's arguments and those of the views.

        Args:
            backbone: see GeneralizedRCNN.
            proposal_generator: see GeneralizedRCNN; required.
            roi_heads: see GeneralizedRCNN.
            pixel_mean: see GeneralizedRCNN.
            pixel_std: see GeneralizedRCNN.
            input_format: see GeneralizedRCNN.
            vis_period: see GeneralizedRCNN.
            tta_scales: sizes of the views relative to the input of the model, which the mapper has resized.
            tta_flip: whether each size is also mirrored.
            tta_keypoint_flip_indices: index of the mirrored counterpart of each keypoint, as ``keypoint_hflip_indices`` of the mapper.

        Raises:
            InputError: invalid scales, no proposal generator, or missing flip indices for a keypoint head.
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
            raise InputError("TTARCNN needs model.proposal_generator: precomputed proposals fit one view only")
        if tta_flip and _has(roi_heads, "keypoint_on"):
            self._check_flip_indices(roi_heads.keypoint_head.num_keypoints)

    def inference(
        self,
        batched_inputs: list[dict[str, Any]],
        detected_instances: list[Instances] | None = None,
        do_postprocess: bool = True,
    ) -> list[Any]:
        """Returns detections as CompactRCNN does; raw results are in the frame of the input image, for any views."""
        if self.tta_scales == [1.0] and not self.tta_flip:
            return super().inference(batched_inputs, detected_instances, do_postprocess)
        given: Sequence[Instances | None] = detected_instances or [None] * len(batched_inputs)
        results = [self._predict(image["image"], boxes) for image, boxes in zip(batched_inputs, given, strict=True)]
        return self.compact(batched_inputs, results) if do_postprocess else results

    def _predict(self, image: Tensor, given: Instances | None) -> Instances:
        """Returns the raw results of one image (C, H, W)."""
        image = image.to(self.device)
        size = (int(image.shape[1]), int(image.shape[2]))
        sizes = [(max(1, round(size[0] * scale)), max(1, round(size[1] * scale))) for scale in self.tta_scales]
        views = [AugmentedView(own, flip) for own in sizes for flip in ([False, True] if self.tta_flip else [False])]
        found = self._detect(image, views) if given is None else given.to(self.device)
        if _has(self.roi_heads, "mask_on") or _has(self.roi_heads, "keypoint_on"):
            self._add_masks_and_keypoints(found, image, views)
        return found

    def _detect(self, image: Tensor, views: Sequence[AugmentedView]) -> Instances:
        """Returns the merged boxes of all views."""
        size = (int(image.shape[1]), int(image.shape[2]))
        # A copy that shares all weights, because another thread may use the model.
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
        # The settings of the last stage apply to a cascade.
        predictor = predictor[-1] if isinstance(predictor, nn.ModuleList) else predictor
        if isinstance(predictor, BoxPredictor):
            return predictor.suppress(found)
        kept = batched_nms(found.pred_boxes.tensor, found.scores, found.pred_classes, predictor.test_nms_thresh)
        limit = predictor.test_topk_per_image
        return found[kept[:limit] if limit >= 0 else kept]

    def _add_masks_and_keypoints(self, found: Instances, image: Tensor, views: Sequence[AugmentedView]) -> None:
        """Adds the predictions of the heads for the boxes, averaged over the views."""
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
        # Masks last: BoxPredictor may then select detections.
        for name, total in sorted(sums.items(), key=lambda entry: entry[0] == "pred_masks"):
            found.set(name, total / len(views))
        if "pred_keypoint_heatmaps" in sums:
            keypoint_rcnn_inference(found.pred_keypoint_heatmaps, [found])

    def _batch_of(self, image: Tensor, view: AugmentedView) -> ImageList:
        """Returns the view of an image (C, H, W) as a normalised and padded batch.

        Raises:
            InputError: the backbone takes images of one size, and the view is larger.
        """
        images = self.preprocess_image([{"image": view.transform_image(image)}])
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
                f"model.tta_keypoint_flip_indices={indices}: expected the index of the mirrored counterpart of each of the {num_keypoints} "
                "keypoints (maskrcnn_ext.data.registry.keypoints.hflip_indices returns it), or set model.tta_flip=false"
            )


def _has(roi_heads: nn.Module, head: str) -> bool:
    return bool(getattr(roi_heads, head, False))


def _ratio(boxes: Tensor, new: tuple[int, int], old: tuple[int, int]) -> Tensor:
    x, y = new[1] / old[1], new[0] / old[0]
    return boxes.new_tensor([x, y, x, y])


def _mirrored(boxes: Tensor, width: int) -> Tensor:
    """Returns boxes (R, 4) mirrored in an image of a width."""
    x0, y0, x1, y1 = boxes.unbind(1)
    return torch.stack([width - x1, y0, width - x0, y1], dim=1)
