"""Mask R-CNN whose images are centred on a canvas, and the conversion of boxes between canvas and image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.backbone import Backbone
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn

from maskrcnn_ext.compat import rescale_to_inputs
from maskrcnn_ext.errors import InputError

Size = tuple[int, int]
# The stride of the pyramid's coarsest level.
STRIDE = 64


def canvas_size(image_sizes: Sequence[Sequence[int]], square_size: int) -> Size:
    """Returns the least height and width, multiples of 64 and at least `square_size`, that contain images (height, width).

    Example:
        >>> canvas_size([(480, 640), (500, 333)], square_size=0)
        (512, 640)
    """
    height, width = (-(-max(sides) // STRIDE) * STRIDE for sides in zip(*image_sizes, strict=True))
    return max(height, square_size), max(width, square_size)


def centred(image_size: Sequence[int], canvas: Sequence[int]) -> tuple[int, int, int, int]:
    """Returns the window (x0, y0, x1, y1) of an image (height, width) in the middle of a canvas; odd padding is longer at the end.

    Example:
        >>> centred((480, 640), (512, 640))
        (0, 16, 640, 496)
    """
    height, width = image_size
    top, left = (canvas[0] - height) // 2, (canvas[1] - width) // 2
    return left, top, left + width, top + height


@dataclass(frozen=True)
class Frame:
    """Converts boxes between the padded image and the image inside it.

    Matterport scales by the distances between the first and the last pixel, (W - 1) / (w - 1); Detectron2 scales by W / w. The boxes
    returned by :meth:`outward` become Matterport's by Detectron2's scaling.

    Attributes:
        window: (x0, y0, x1, y1) of the image, in pixels of the padded image.
        output_size: (height, width) of the image as stored.
        round_boxes: round to whole pixels of the image as stored, halves to even, as Matterport's ``detect`` does.
    """

    window: tuple[int, int, int, int]
    output_size: Size
    round_boxes: bool = False

    def outward(self, boxes: Tensor) -> Tensor:
        """Returns boxes (R, 4) of the padded image in pixels of the image."""
        origin, last, scale, pixel = self._numbers(boxes)
        stored = (boxes - origin - last) * scale + last
        return (stored.round() if self.round_boxes else stored) * pixel

    def inward(self, boxes: Tensor) -> Tensor:
        """Inverts :meth:`outward` without the rounding."""
        origin, last, scale, pixel = self._numbers(boxes)
        return (boxes / pixel - last) / scale + last + origin

    def _numbers(self, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns, for each coordinate of a box, the image's origin, the offset of the last pixel, Matterport's scale, and the inverse of
        Detectron2's scale.
        """
        x0, y0, x1, y1 = self.window
        inner, stored = (x1 - x0, y1 - y0), self.output_size[::-1]
        # The extent of an image of one pixel is 0.
        scale = [max(outer - 1, 1) / max(side - 1, 1) for side, outer in zip(inner, stored, strict=True)]
        pixel = [side / outer for side, outer in zip(inner, stored, strict=True)]
        origin, last, scale, pixel = (
            boxes.new_tensor(numbers) for numbers in ((x0, y0, x0, y0), (0, 0, 1, 1), scale * 2, pixel * 2)
        )
        return origin, last, scale, pixel


class LetterboxRCNN(GeneralizedRCNN):
    """Detectron2's GeneralizedRCNN with Matterport's padding: on all sides, with pixels of 0 before the mean is subtracted.

    Mappers return images without padding, and results are in pixels of those, as usual in Detectron2. In training, images are in the
    corner of the canvas, as their ground truth does;
    :class:`maskrcnn_ext.data.mapping.augmentation.resizing.Letterbox` pads them on all sides before.

    Example::

        model._target_=maskrcnn_ext.modeling.matterport.rcnn.LetterboxRCNN model.square_size=1024
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
        """Takes the arguments of Detectron2's GeneralizedRCNN and two more.

        Args:
            backbone: computes the features.
            proposal_generator: computes the proposals.
            roi_heads: compute the detections.
            pixel_mean: mean of each channel.
            pixel_std: standard deviation of each channel.
            input_format: order of the channels, for visualisation.
            vis_period: iterations between visualisations in training; 0 for none.
            square_size: least side of the canvas (IMAGE_MAX_DIM of the mode "square"); 0 for the next multiples of 64 ("pad64").
            round_boxes: round boxes to whole pixels of the image as stored, as Matterport's ``detect`` does; masks are pasted into them.

        Raises:
            InputError: `roi_heads` predict keypoints, which Matterport does not support.
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
        """Returns the padded batch (N, C, H, W) with the sizes of the images."""
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
                _with_boxes(found.to(self.device), canvas, frame.inward(found.pred_boxes.tensor.to(self.device)))
                for found, frame in zip(detected_instances, frames, strict=True)
            ]
        results = super().inference(batched_inputs, detected_instances, do_postprocess=False)
        results = [
            _with_boxes(found, size, frame.outward(found.pred_boxes.tensor))
            for found, size, frame in zip(results, sizes, frames, strict=True)
        ]
        return rescale_to_inputs(results, batched_inputs, sizes) if do_postprocess else results


def _with_boxes(found: Instances, image_size: tuple[int, int], boxes: Tensor) -> Instances:
    """Returns a copy with another image size and other boxes."""
    fields = {**found.get_fields(), "pred_boxes": Boxes(boxes)}
    return Instances(image_size, **fields)
