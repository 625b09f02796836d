"""What an exported model's user must know: how an image becomes its input, and what its outputs mean. Without torch."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.zero_border_resize import zero_border_resize

# The entry of a model's metadata that holds the recipe as JSON.
KEY = "maskrcnn_ext"
# The rules that a recipe may name.
RESIZES = ("none", "pillow", "torchvision", "opencv", "matterport")
BOXES = ("detectron2", "matterport", "matterport, whole pixels")
MASKS = ("detectron2", "torchvision")


@dataclass(frozen=True)
class Recipe:
    """What happens to an image before the model, and what its outputs mean.

    Attributes:
        image_format: order of the input's channels: "BGR", "RGB", "L" for grey, or "raw" as stored.
        resize: how an image's size is changed: "none"; "pillow", Detectron2's, which smooths where it shrinks; "torchvision" or "opencv",
            see :class:`maskrcnn_ext.data.mapping.augmentation.resizing.PlainResize`; "matterport", see
            :class:`maskrcnn_ext.data.mapping.augmentation.resizing.Letterbox`, where a length of 0 is none.
        short_edge: the length of the short side after it, in pixels.
        long_edge: that which the long side may not exceed, in pixels.
        pixel_mean: of each channel, of pixels from 0 to 255. The model subtracts it, divides by `pixel_std` and then pads the image at
            the right and at the bottom with 0: none of this is left to do.
        pixel_std: of each channel.
        size_divisibility: what the padded sides are multiples of.
        class_names: in the order of the outputs' classes.
        category_ids: the data set's own ids of the classes.
        keypoint_names: in the order of the outputs; empty for a model without keypoints.
        output_names: of the model's outputs, in their order.
        score_threshold: detections have more.
        nms_threshold: detections of a class overlap by no more, as IoU.
        max_detections: of an image.
        mask_threshold: a pixel of the pasted mask with as much or more is the object's.
        batched: the model takes N images of one size, and tells of each detection which image it is from.
        least_scale: of "matterport": what an image is enlarged by at least.
        boxes: how they are scaled to the image: "detectron2", by the ratio of the sides; "matterport", by that of the distances from the
            first to the last pixel, also in "whole pixels".
        masks: how they are pasted: "detectron2", or "torchvision", into boxes of whole pixels.
    """

    image_format: str
    resize: str
    short_edge: int
    long_edge: int
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    size_divisibility: int
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    keypoint_names: tuple[str, ...]
    output_names: tuple[str, ...]
    score_threshold: float
    nms_threshold: float
    max_detections: int
    mask_threshold: float = 0.5
    batched: bool = False
    least_scale: float = 0.0
    boxes: str = "detectron2"
    masks: str = "detectron2"

    def to_json(self) -> str:
        """Writes it down."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str, source: object) -> Recipe:
        """Reads what :meth:`to_json` wrote; `source` is named in the error.

        Raises:
            InputError: it is something else.
        """
        try:
            values: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value for name, value in json.loads(text).items()
            }
            recipe = cls(**values)
        except (ValueError, TypeError, AttributeError) as error:
            raise InputError(f"{source}: its metadata is not that of `maskrcnn-ext export` ({error})") from error
        for name, known in {"resize": RESIZES, "boxes": BOXES, "masks": MASKS}.items():
            if getattr(recipe, name) not in known:
                raise InputError(
                    f"{source}: its metadata have {name}={getattr(recipe, name)!r}: expected {', '.join(known)}"
                )
        return recipe

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """Makes the model's input of an image.

        Args:
            image: (H, W, 3), blue, green, red; for "L" and "raw" (H, W) or (H, W, C) as the model was trained with.

        Returns:
            (C, H', W') float32.

        Raises:
            InputError: it has another number of channels than the model takes.
        """
        if image.ndim == 2:
            image = image[:, :, None]
        if image.shape[2] != len(self.pixel_mean):
            raise InputError(
                f"an image of {image.shape[2]} channels, and the model takes {len(self.pixel_mean)} ({self.image_format})"
            )
        if self.image_format == "RGB":
            image = image[:, :, ::-1]
        return np.ascontiguousarray(self._resized(image).transpose(2, 0, 1), dtype=np.float32)

    def _resized(self, image: np.ndarray) -> np.ndarray:
        if self.resize == "none":
            return image
        height, width = self.resized_sides(*image.shape[:2])
        if self.resize == "matterport":
            return zero_border_resize(image, height, width)
        if self.resize == "pillow" and image.dtype == np.uint8:
            channels = [Image.fromarray(np.ascontiguousarray(image[:, :, c])) for c in range(image.shape[2])]
            return np.dstack([np.asarray(c.resize((width, height), Image.Resampling.BILINEAR)) for c in channels])
        if self.resize != "opencv":
            return _interpolated(_interpolated(image.astype(np.float32), 1, width), 0, height)
        resized = cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=cv2.INTER_LINEAR)
        return resized.reshape(height, width, -1)

    def resized_sides(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the model's input for an image of these."""
        if self.resize == "none":
            return height, width
        scale = self.short_edge / min(height, width)
        if self.resize == "matterport":
            scale = max(1.0, scale, self.least_scale)
            if self.long_edge and round(max(height, width) * scale) > self.long_edge:
                scale = self.long_edge / max(height, width)
            return max(round(height * scale), 1), max(round(width * scale), 1)
        if self.resize == "pillow":
            # Detectron2's steps, so that no size is rounded otherwise.
            sides = [scale * height, scale * width]
            sides[0 if height <= width else 1] = float(self.short_edge)
            if max(sides) > self.long_edge:
                shrink = self.long_edge / max(sides)
                sides = [side * shrink for side in sides]
            return int(sides[0] + 0.5), int(sides[1] + 0.5)
        scale = min(scale, self.long_edge / max(height, width))
        half = 0.5 if self.resize == "opencv" else 0.0
        return math.floor(height * scale + half), math.floor(width * scale + half)


def _interpolated(image: np.ndarray, axis: int, size: int) -> np.ndarray:
    """Resamples one axis as PyTorch's bilinear ``interpolate`` does, whose scale and positions are float32: OpenCV rounds otherwise."""
    image = np.moveaxis(image, axis, 0)
    scale = float(np.float32(len(image)) / np.float32(size))
    position = np.maximum((np.arange(size) + 0.5) * scale - 0.5, 0).astype(np.float32)
    low = position.astype(int)
    share = (position - low.astype(np.float32)).reshape(-1, 1, 1)
    left, right = image[low], image[np.minimum(low + 1, len(image) - 1)]
    return np.moveaxis(left * (1 - share) + right * share, 0, axis)


def scale_boxes(recipe: Recipe, boxes: np.ndarray, inner: tuple[int, int], outer: tuple[int, int]) -> np.ndarray:
    """Boxes (R, 4) in pixels of the model's input to pixels of the image, within it.

    Args:
        recipe: has the rule.
        boxes: x0, y0, x1, y1, float32.
        inner: height and width of the input.
        outer: height and width of the image.
    """
    sides, input_sides = (np.array([size[1], size[0]] * 2, np.float32) for size in (outer, inner))
    if recipe.boxes == "detectron2":
        return np.clip(boxes * (sides / input_sides), 0, sides)
    # From the first pixel to the last; an image of a single pixel has no extent.
    last = np.array([0, 0, 1, 1], np.float32)
    scaled = (boxes - last) * (np.maximum(sides - 1, 1) / np.maximum(input_sides - 1, 1)) + last
    return np.clip(np.rint(scaled) if recipe.boxes == "matterport, whole pixels" else scaled, 0, sides)


def input_name(batched: bool) -> str:
    """What the model's input is called."""
    return "images" if batched else "image"


def recipe_file(model: Path) -> Path:
    """Where the recipe of a file stands that cannot hold it."""
    return model.with_suffix(".json")
