"""Matterport's resizing: enlarge the shorter side, bound the longer one, and pad around."""

from __future__ import annotations

import numpy as np
from detectron2.data import transforms as T
from PIL import Image

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.zero_border_resize import zero_border_resize

_MULTIPLE = 64


class BilinearResize(T.ResizeTransform):
    """Detectron2's ResizeTransform whose images are interpolated between the four nearest pixels, as scikit-image's ``resize`` does.

    Detectron2's takes Pillow's filter, which averages over more pixels where it shrinks. Beyond the image is 0, which the outermost
    pixels of an enlarged image are mixed with. Values of integer images are cut off, not rounded.
    """

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        """Resizes (H, W) or (H, W, C); another interpolation than bilinear is Detectron2's."""
        if (self.interp if interp is None else interp) != Image.Resampling.BILINEAR:
            return super().apply_image(img, interp)
        return zero_border_resize(img, self.new_h, self.new_w)

    def inverse(self) -> BilinearResize:
        """Back to the former size."""
        return BilinearResize(self.new_h, self.new_w, self.h, self.w, self.interp)


class Letterbox(T.Augmentation):
    """Resizes as Matterport's ``resize_image``, and pads around where it is told to.

    The scale is that which makes the shorter side `min_dim` and at least `min_scale`, never less than 1, unless the longer side would be
    more than `max_dim`.
    """

    def __init__(
        self, min_dim: int | None, max_dim: int | None = None, min_scale: float | None = None, pad: str | None = None
    ) -> None:
        """As Matterport's settings.

        Args:
            min_dim: IMAGE_MIN_DIM; 0 or None for none.
            max_dim: IMAGE_MAX_DIM, which counts in the mode "square" alone; None for none.
            min_scale: IMAGE_MIN_SCALE; 0 or None for none.
            pad: "square" for `max_dim` on both sides, "pad64" for the next multiples of 64, None for none: for training, where ground truth
                must move as well; else :class:`maskrcnn_ext.modeling.matterport.rcnn.LetterboxRCNN` pads.

        Raises:
            InputError: another `pad`, or "square" without `max_dim`.
        """
        if pad not in (None, "pad64", "square") or (pad == "square" and not max_dim):
            raise InputError(
                f"Letterbox has no pad={pad!r} with max_dim={max_dim}: expected null, pad64, or square with a max_dim"
            )
        super().__init__()
        self.min_dim, self.max_dim, self.min_scale, self.pad = min_dim, max_dim, min_scale, pad

    def get_transform(self, image: np.ndarray) -> T.Transform | T.TransformList:
        """The resizing, and the padding behind it."""
        height, width = image.shape[:2]
        scale = max(1.0, (self.min_dim or 0) / min(height, width), self.min_scale or 0)
        if self.max_dim and round(max(height, width) * scale) > self.max_dim:
            scale = self.max_dim / max(height, width)
        size = max(round(height * scale), 1), max(round(width * scale), 1)
        resize = BilinearResize(height, width, *size, Image.Resampling.BILINEAR)
        if self.pad is None:
            return resize
        rest = [(self.max_dim if self.pad == "square" else -(-side // _MULTIPLE) * _MULTIPLE) - side for side in size]
        top, left = (side // 2 for side in rest)
        return T.TransformList([resize, T.PadTransform(left, top, rest[1] - left, rest[0] - top, size[1], size[0])])
