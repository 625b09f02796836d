"""Mask R-CNN that sees its images in the middle of a canvas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.backbone import Backbone
from detectron2.structures import Boxes, ImageList, Instances
from torch import nn

from maskrcnn_ext.compat import rescale_to_inputs
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.modeling.matterport.frame import Frame, canvas_size, centred


class LetterboxRCNN(GeneralizedRCNN):
    """Detectron2's GeneralizedRCNN that pads as Matterport does: around the image, with pixels of 0 before the mean is subtracted.

    Mappers give images without padding and results are in pixels of those, as always in Detectron2. In training images lie in the corner of
    the canvas, where their ground truth is; :class:`maskrcnn_ext.data.mapping.augmentation.resizing.Letterbox` pads them around before.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        proposal_generator: nn.Module,
        roi_heads: nn.Module,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        input_format: str | None = None,
        vis_period: int = 0,
        square_size: int = 0,
        round_boxes: bool = False,
    ) -> None:
        """As in Detectron2, and:

        Args:
            backbone: features.
            proposal_generator: proposals.
            roi_heads: detections.
            pixel_mean: of each channel.
            pixel_std: of each channel.
            input_format: order of the channels, for pictures.
            vis_period: of pictures in training; 0 for none.
            square_size: least side of the canvas (IMAGE_MAX_DIM of the mode "square"); 0: the next multiples of 64 (the mode "pad64").
            round_boxes: give boxes as Matterport's ``detect`` does, in whole pixels of the image as stored; masks are fitted into them.

        Raises:
            InputError: `roi_heads` find keypoints, which Matterport does not have and which are not moved back.
        """
        if getattr(roi_heads, "keypoint_on", False):
            raise InputError("LetterboxRCNN has no keypoints: set model.roi_heads.keypoint_in_features=null")
        super().__init__(
            backbone=backbone,
            proposal_generator=proposal_generator,
            roi_heads=roi_heads,
            pixel_mean=pixel_mean,
            pixel_std=pixel_std,
            input_format=input_format,
            vis_period=vis_period,
        )
        self.square_size = square_size
        self.round_boxes = round_boxes

    def preprocess_image(self, batched_inputs: list[dict[str, Any]]) -> ImageList:
        """Returns the padded batch, (N, C, H, W), with the images' own sizes."""
        images = [image["image"].to(self.device) for image in batched_inputs]
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        canvas = canvas_size(sizes, self.square_size)
        batch = self.pixel_mean.new_zeros((len(images), images[0].shape[0], *canvas))
        for padded, image, size in zip(batch, images, sizes, strict=True):
            x0, y0, x1, y1 = (0, 0, size[1], size[0]) if self.training else centred(size, canvas)
            padded[:, y0:y1, x0:x1] = image
        return ImageList((batch - self.pixel_mean) / self.pixel_std, sizes)

    def inference(
        self,
        batched_inputs: list[dict[str, Any]],
        detected_instances: list[Instances] | None = None,
        do_postprocess: bool = True,
    ) -> list[Any]:
        """As in Detectron2."""
        sizes = [(image["image"].shape[-2], image["image"].shape[-1]) for image in batched_inputs]
        canvas = canvas_size(sizes, self.square_size)
        frames = [
            Frame(centred(size, canvas), (image.get("height", size[0]), image.get("width", size[1])), self.round_boxes)
            for image, size in zip(batched_inputs, sizes, strict=True)
        ]
        if detected_instances is not None:
            detected_instances = [
                _moved(found.to(self.device), canvas, frame.inward(found.pred_boxes.tensor.to(self.device)))
                for found, frame in zip(detected_instances, frames, strict=True)
            ]
        results = super().inference(batched_inputs, detected_instances, do_postprocess=False)
        results = [
            _moved(found, size, frame.outward(found.pred_boxes.tensor))
            for found, size, frame in zip(results, sizes, frames, strict=True)
        ]
        return rescale_to_inputs(results, batched_inputs, sizes) if do_postprocess else results


def _moved(found: Instances, image_size: tuple[int, int], boxes: torch.Tensor) -> Instances:
    fields = {**found.get_fields(), "pred_boxes": Boxes(boxes)}
    return Instances(image_size, **fields)
