"""An image with what was found in it: what every output is made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from detectron2.structures import Instances

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.inference.loading import Classes
from maskrcnn_ext.inference.sources import Item
from maskrcnn_ext.ops.rle_segments import rle_window
from maskrcnn_ext.report.draw import palette


@dataclass(frozen=True)
class Region:
    """A part of an image and the pixels of one object in it.

    Attributes:
        x: left edge in pixels of the image.
        y: upper edge.
        mask: (h, w) uint8, 0 or 1; of an object without mask, its box.
    """

    x: int
    y: int
    mask: np.ndarray

    def of(self, image: np.ndarray) -> np.ndarray:
        """The part of an image (H, W, ...), as a view."""
        height, width = self.mask.shape
        return image[self.y : self.y + height, self.x : self.x + width]


@dataclass(frozen=True)
class Scene:
    """One image and its objects.

    Attributes:
        item: what was predicted.
        found: the objects to show, highest score first.
        classes: what their classes mean.
        load: reads the image, (H, W, 3), uint8, BGR; called at most once, and not by outputs that need none.
    """

    item: Item
    found: Instances
    classes: Classes
    load: Callable[[], np.ndarray]

    @cached_property
    def image(self) -> np.ndarray:
        """(H, W, 3), uint8, BGR; not to be changed."""
        image = self.load()
        if image.shape[:2] != self.found.image_size:
            raise InputError(f"the image has {image.shape[:2]} pixels, and had {self.found.image_size} when predicted")
        return image

    @property
    def boxes(self) -> list[list[float]]:
        """x0, y0, x1, y1 of every object, in pixels."""
        boxes: list[list[float]] = self.found.pred_boxes.tensor.tolist()
        return boxes

    @property
    def names(self) -> list[str]:
        """The class of every object."""
        return [self.classes.names[index] for index in self.found.pred_classes.tolist()]

    @property
    def colors(self) -> list[tuple[int, int, int]]:
        """Blue, green, red of every object: one for a class, and where there is one class or objects are tracked, for an object."""
        if self.found.has("track_ids"):
            return [palette(number) for number in self.found.track_ids.tolist()]
        if len(self.classes.names) > 1:
            return [palette(index) for index in self.found.pred_classes.tolist()]
        return [palette(index) for index in range(len(self.found))]

    def masks(self) -> Iterator[Region]:
        """The mask of every object in the part of the image that it takes; of no pixels where that is empty."""
        if not self.found.has("pred_masks"):
            yield from (_box_region(box, self.found.image_size) for box in self.boxes)
            return
        masks = self.found.pred_masks
        for rle, box in zip(masks.rles, masks.boxes().round().int().tolist(), strict=True):
            yield Region(box[0], box[1], rle_window(rle, *box))

    def box_regions(self) -> Iterator[Region]:
        """The box of every object, rounded to whole pixels outward, with the mask in it."""
        rles: list[Any] = self.found.pred_masks.rles if self.found.has("pred_masks") else [None] * len(self.found)
        for rle, box in zip(rles, self.boxes, strict=True):
            region = _box_region(box, self.found.image_size)
            height, width = region.mask.shape
            if rle is None or not region.mask.size:
                yield region
            else:
                mask = rle_window(rle, region.x, region.y, region.x + width, region.y + height)
                yield Region(region.x, region.y, mask)


def png(image: np.ndarray) -> bytes:
    """Encodes (H, W), (H, W, 3) BGR or (H, W, 4) BGRA."""
    encoded: Any = cv2.imencode(".png", image)[1]
    data: bytes = encoded.tobytes()
    return data


def _box_region(box: list[float], size: tuple[int, int]) -> Region:
    height, width = size
    x0, y0 = max(math.floor(box[0]), 0), max(math.floor(box[1]), 0)
    x1, y1 = min(math.ceil(box[2]), width), min(math.ceil(box[3]), height)
    return Region(x0, y0, np.ones((max(y1 - y0, 0), max(x1 - x0, 0)), np.uint8))
