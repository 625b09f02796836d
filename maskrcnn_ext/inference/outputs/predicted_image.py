"""An image with its predicted objects: the input of every kind of output."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from detectron2.structures import Instances

from maskrcnn_ext.data.registry.classes import Classes
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.inference.sources import InputImage
from maskrcnn_ext.ops.rle_segments import rle_window
from maskrcnn_ext.report.draw import palette


@dataclass(frozen=True)
class MaskWindow:
    """A window of an image with the mask of one object in it.

    Attributes:
        x: left edge in pixels of the image.
        y: upper edge in pixels of the image.
        mask: (h, w) uint8, 0 or 1; all 1 for an object without a mask.
    """

    x: int
    y: int
    mask: np.ndarray

    def crop(self, image: np.ndarray) -> np.ndarray:
        """Returns the window of an image (H, W, ...), as a view.

        Example:
            >>> MaskWindow(1, 0, np.ones((1, 2), np.uint8)).crop(np.arange(8).reshape(2, 4))
            array([[1, 2]])
        """
        height, width = self.mask.shape
        return image[self.y : self.y + height, self.x : self.x + width]


@dataclass(frozen=True)
class PredictedImage:
    """One image and its objects.

    Attributes:
        item: the input image.
        instances: the objects to show, on the CPU, the highest score first.
        classes: names and colours of their classes.
        read: returns the image (H, W, 3), uint8, BGR; called at most once, and only by outputs that need the pixels.
        read_values: returns the values (H, W, C) as the model reads them; None for those of `read`.
        image_format: format of these values: "BGR", "RGB", "L" or "raw".
    """

    item: InputImage
    instances: Instances
    classes: Classes
    read: Callable[[], np.ndarray]
    read_values: Callable[[], np.ndarray] | None = None
    image_format: str = "BGR"

    @cached_property
    def image(self) -> np.ndarray:
        """The image (H, W, 3), uint8, BGR; read-only.

        Raises:
            InputError: its size has changed since it was predicted.
        """
        return self._checked(self.read())

    @cached_property
    def values(self) -> np.ndarray:
        """The values (H, W, C) as the model reads them, of their stored type; read-only.

        Raises:
            InputError: the size of the image has changed since it was predicted.
        """
        return self.image if self.read_values is None else self._checked(self.read_values())

    def _checked(self, image: np.ndarray) -> np.ndarray:
        if image.shape[:2] != self.instances.image_size:
            raise InputError(
                f"the image has {image.shape[:2]} pixels, but had {self.instances.image_size} when it was predicted"
            )
        return image

    @property
    def boxes(self) -> list[list[float]]:
        """The boxes x0, y0, x1, y1 of the objects, in pixels."""
        boxes: list[list[float]] = self.instances.pred_boxes.tensor.tolist()
        return boxes

    @property
    def names(self) -> list[str]:
        """The class name of each object."""
        return [self.classes.names[index] for index in self.instances.pred_classes.tolist()]

    @property
    def colors(self) -> list[tuple[int, int, int]]:
        """The colour (blue, green, red) of each object: by track if there are tracks, else by class, or by object for a single class."""
        if self.instances.has("track_ids"):
            return [palette(number) for number in self.instances.track_ids.tolist()]
        if len(self.classes.names) > 1:
            return [palette(index) for index in self.instances.pred_classes.tolist()]
        return [palette(index) for index in range(len(self.instances))]

    def masks(self) -> Iterator[MaskWindow]:
        """Yields the mask of each object in its tightest window, which has no pixels if the mask is empty; boxes if there are no masks."""
        if not self.instances.has("pred_masks"):
            yield from (_box_window(box, self.instances.image_size) for box in self.boxes)
            return
        masks = self.instances.pred_masks
        for rle, box in zip(masks.rles, masks.boxes().round().int().tolist(), strict=True):
            yield MaskWindow(box[0], box[1], rle_window(rle, *box))

    def box_windows(self) -> Iterator[MaskWindow]:
        """Yields the box of each object, rounded outward to whole pixels and clipped to the image, with the mask in it."""
        has_masks = self.instances.has("pred_masks")
        rles: list[Any] = self.instances.pred_masks.rles if has_masks else [None] * len(self.instances)
        for rle, box in zip(rles, self.boxes, strict=True):
            window = _box_window(box, self.instances.image_size)
            height, width = window.mask.shape
            if rle is None or not window.mask.size:
                yield window
            else:
                mask = rle_window(rle, window.x, window.y, window.x + width, window.y + height)
                yield MaskWindow(window.x, window.y, mask)


def encode_png(image: np.ndarray) -> bytes:
    """Returns the PNG of an image (H, W), (H, W, 3) BGR or (H, W, 4) BGRA.

    Example:
        >>> encode_png(np.zeros((2, 2), np.uint8))[1:4]
        b'PNG'
    """
    encoded: Any = cv2.imencode(".png", image)[1]
    data: bytes = encoded.tobytes()
    return data


def _box_window(box: list[float], size: tuple[int, int]) -> MaskWindow:
    height, width = size
    x0, y0 = max(math.floor(box[0]), 0), max(math.floor(box[1]), 0)
    x1, y1 = min(math.ceil(box[2]), width), min(math.ceil(box[3]), height)
    return MaskWindow(x0, y0, np.ones((max(y1 - y0, 0), max(x1 - x0, 0)), np.uint8))
