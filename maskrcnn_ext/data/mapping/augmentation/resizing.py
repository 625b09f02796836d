"""Resizes images as torchvision, MMDetection and Matterport do, for weights that were trained there.

Detectron2 smooths an image before it shrinks it; these frameworks do not.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from detectron2.data import transforms as T
from PIL import Image

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.zero_border_resize import zero_border_resize

_STYLES = ("torchvision", "opencv")
_PADDED_MULTIPLE = 64  # of Matterport's mode "pad64"


class PlainResize(T.Augmentation):
    """Resizes the short side to a length, or less if the long side would exceed its limit. Bilinear, without smoothing."""

    def __init__(self, short_edge_length: int, max_size: int, style: str) -> None:
        """Stores the size and the style.

        Args:
            short_edge_length: in pixels.
            max_size: of the long side, in pixels.
            style: "torchvision" rounds sizes down and returns float32 pixels. "opencv", as in MMDetection, rounds sizes to the nearest
                integer and keeps 8-bit pixels.

        Raises:
            InputError: the style is unknown.
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


class PlainResizeTransform(T.ResizeTransform):
    """Detectron2's ResizeTransform with the interpolation of a :class:`PlainResize` style."""

    def __init__(self, h: int, w: int, new_h: int, new_w: int, style: str) -> None:
        """Stores the sizes before and after."""
        super().__init__(h, w, new_h, new_w)
        self.style = style

    def apply_image(self, img: np.ndarray, interp: Any = None) -> np.ndarray:
        """Resizes (H, W) or (H, W, C). Detectron2 sets `interp` for label images only."""
        if interp is None and self.style == "opencv":
            resized = cv2.resize(img, (self.new_w, self.new_h), interpolation=cv2.INTER_LINEAR)
            return resized if resized.ndim == img.ndim else resized[:, :, None]
        # Detectron2 resizes floats by torch.nn.functional.interpolate.
        pixels = img.astype(np.float32) if interp is None else img
        resized = super().apply_image(pixels, interp)
        return np.asarray(resized)


class BilinearResize(T.ResizeTransform):
    """Detectron2's ResizeTransform with the bilinear interpolation of scikit-image's ``resize``.

    It interpolates between the four nearest pixels; Detectron2 uses Pillow's filter, which averages over more pixels to shrink. Pixels
    outside of the image are 0, which blends into the border of an enlarged image. Values of integer images are truncated, not rounded.
    """

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        """Resizes (H, W) or (H, W, C); uses Detectron2's code for other interpolations than bilinear."""
        if (self.interp if interp is None else interp) != Image.Resampling.BILINEAR:
            return super().apply_image(img, interp)
        return zero_border_resize(img, self.new_h, self.new_w)

    def inverse(self) -> BilinearResize:
        """Returns the transform back to the former size."""
        return BilinearResize(self.new_h, self.new_w, self.h, self.w, self.interp)


class Letterbox(T.Augmentation):
    """Resizes and pads as Matterport's ``resize_image``.

    The scale makes the shorter side `min_dim` and is at least `min_scale` and at least 1. It is reduced if the longer side would exceed
    `max_dim`.
    """

    def __init__(
        self, min_dim: int | None, max_dim: int | None = None, min_scale: float | None = None, pad: str | None = None
    ) -> None:
        """Stores Matterport's settings.

        Args:
            min_dim: IMAGE_MIN_DIM; 0 or None for no minimum.
            max_dim: IMAGE_MAX_DIM of the mode "square"; None for no maximum.
            min_scale: IMAGE_MIN_SCALE; 0 or None for no minimum.
            pad: "square" pads both sides to `max_dim`, "pad64" to the next multiples of 64. Use these for training, where the ground truth
                must move along. None does not pad: at inference :class:`maskrcnn_ext.modeling.matterport.rcnn.LetterboxRCNN` does.

        Raises:
            InputError: `pad` is unknown, or "square" without `max_dim`.
        """
        if pad not in (None, "pad64", "square") or (pad == "square" and not max_dim):
            raise InputError(
                f"Letterbox has no pad={pad!r} with max_dim={max_dim}: expected null, pad64, or square with a max_dim"
            )
        super().__init__()
        self.min_dim, self.max_dim, self.min_scale, self.pad = min_dim, max_dim, min_scale, pad

    def get_transform(self, image: np.ndarray) -> T.Transform | T.TransformList:
        """Returns the resizing, followed by the padding if there is any."""
        height, width = image.shape[:2]
        scale = max(1.0, (self.min_dim or 0) / min(height, width), self.min_scale or 0)
        if self.max_dim and round(max(height, width) * scale) > self.max_dim:
            scale = self.max_dim / max(height, width)
        size = max(round(height * scale), 1), max(round(width * scale), 1)
        resize = BilinearResize(height, width, *size, Image.Resampling.BILINEAR)
        if self.pad is None:
            return resize
        rest = [
            (self.max_dim if self.pad == "square" else -(-side // _PADDED_MULTIPLE) * _PADDED_MULTIPLE) - side
            for side in size
        ]
        top, left = (side // 2 for side in rest)
        return T.TransformList([resize, T.PadTransform(left, top, rest[1] - left, rest[0] - top, size[1], size[0])])
