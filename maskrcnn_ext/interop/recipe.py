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

# The entry of a model's metadata that holds the recipe as JSON.
KEY = "maskrcnn_ext"
RESIZES = ("none", "pillow", "torchvision", "opencv")


@dataclass(frozen=True)
class Recipe:
    """What happens to an image before the model, and what its outputs mean.

    Attributes:
        image_format: order of the input's channels: "BGR", "RGB", "L" for grey, or "raw" as stored.
        resize: how an image's size is changed: "none"; "pillow", Detectron2's, which smooths where it shrinks; "torchvision" or "opencv",
            see :class:`maskrcnn_ext.data.augmentation.resizing.PlainResize`.
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
            return cls(**values)
        except (ValueError, TypeError, AttributeError) as error:
            raise InputError(f"{source}: its metadata is not that of `maskrcnn-ext export` ({error})") from error

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
        if self.resize == "pillow" and image.dtype == np.uint8:
            channels = [Image.fromarray(np.ascontiguousarray(image[:, :, c])) for c in range(image.shape[2])]
            return np.dstack([np.asarray(c.resize((width, height), Image.Resampling.BILINEAR)) for c in channels])
        pixels = image if self.resize == "opencv" else image.astype(np.float32)
        resized = cv2.resize(np.ascontiguousarray(pixels), (width, height), interpolation=cv2.INTER_LINEAR)
        return resized.reshape(height, width, -1)

    def resized_sides(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the model's input for an image of these."""
        if self.resize == "none":
            return height, width
        scale = self.short_edge / min(height, width)
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


def recipe_file(model: Path) -> Path:
    """Where the recipe of a file stands that cannot hold it."""
    return model.with_suffix(".json")
