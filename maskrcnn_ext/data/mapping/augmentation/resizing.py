"""Resizing as other frameworks do it, for weights that were trained with them: Detectron2 smooths before it shrinks, they do not."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from detectron2.data.transforms import Augmentation, ResizeTransform

from maskrcnn_ext.errors import InputError

_STYLES = ("torchvision", "opencv")


class PlainResize(Augmentation):
    """Resizes the short side to a length, or less where the long side would exceed another; bilinear, without smoothing."""

    def __init__(self, short_edge_length: int, max_size: int, style: str) -> None:
        """Chooses.

        Args:
            short_edge_length: in pixels.
            max_size: of the long side, in pixels.
            style: "torchvision" rounds sizes down and gives pixels as float32; "opencv", of MMDetection, rounds sizes to the nearest and
                pixels to 8 bits if they were.

        Raises:
            InputError: an unknown style.
        """
        super().__init__()
        if style not in _STYLES:
            raise InputError(f"PlainResize has no style={style!r}: expected {' or '.join(_STYLES)}")
        self.short_edge_length, self.max_size, self.style = short_edge_length, max_size, style

    def get_transform(self, image: np.ndarray) -> PlainResizeTransform:
        """Returns the transform for an image (H, W) or (H, W, C)."""
        height, width = image.shape[:2]
        scale = min(self.short_edge_length / min(height, width), self.max_size / max(height, width))
        half = 0.5 if self.style == "opencv" else 0.0
        new_height, new_width = (math.floor(side * scale + half) for side in (height, width))
        return PlainResizeTransform(height, width, new_height, new_width, self.style)


class PlainResizeTransform(ResizeTransform):
    """Detectron2's, with pixels as :class:`PlainResize` says; everything else follows as in Detectron2."""

    def __init__(self, h: int, w: int, new_h: int, new_w: int, style: str) -> None:
        """Takes the sizes before and after."""
        super().__init__(h, w, new_h, new_w)
        self.style = style

    def apply_image(self, img: np.ndarray, interp: Any = None) -> np.ndarray:
        """Resizes; `interp` is given for label images."""
        if interp is None and self.style == "opencv":
            resized = cv2.resize(img, (self.new_w, self.new_h), interpolation=cv2.INTER_LINEAR)
            return resized if resized.ndim == img.ndim else resized[:, :, None]
        # Of floats Detectron2 makes what torch.nn.functional.interpolate makes of them.
        pixels = img.astype(np.float32) if interp is None else img
        resized = super().apply_image(pixels, interp)
        return np.asarray(resized)
