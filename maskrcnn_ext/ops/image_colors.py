"""The colours of an image in CIELAB, cropped to boxes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision.ops import roi_align

from maskrcnn_ext.ops.per_image import PerImage

# sRGB to XYZ, in units of the white point D65 (IEC 61966-2-1).
_TO_XYZ = (
    (0.412453 / 0.950456, 0.357580 / 0.950456, 0.180423 / 0.950456),
    (0.212671, 0.715160, 0.072169),
    (0.019334 / 1.088754, 0.119193 / 1.088754, 0.950227 / 1.088754),
)


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """Converts sRGB (..., 3, H, W) from 0 to 1 to CIELAB: L from 0 to 100, a and b around 0 (CIE 1976, D65).

    Example:
        >>> rgb_to_lab(torch.ones(3, 1, 1)).round().flatten().tolist()[0]
        100.0
    """
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055).clamp(min=0) ** 2.4, rgb / 12.92)
    xyz = torch.einsum("ij,...jhw->...ihw", torch.tensor(_TO_XYZ, dtype=rgb.dtype, device=rgb.device), linear)
    x, y, z = torch.where(xyz > 0.008856, xyz.clamp(min=0) ** (1 / 3), 7.787 * xyz + 16 / 116).unbind(dim=-3)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=-3)


class ImageColors(PerImage):
    """The pixels of an augmented image, as a field ``gt_image`` of Detectron2's Instances, for losses that compare colours.

    Attributes:
        pixels: (C, H, W); other than three channels of 8 bits are grey values, scaled from their least to their largest.
        is_bgr: whether three channels are blue, green and red.
    """

    def __init__(self, count: int, pixels: Tensor, *, is_bgr: bool) -> None:
        """Stores the pixels and the number of objects."""
        super().__init__(count)
        self.pixels = pixels
        self.is_bgr = is_bgr

    def to(self, *args: Any, **kwargs: Any) -> ImageColors:
        """Returns the same on another device."""
        return ImageColors(len(self), self.pixels.to(*args, **kwargs), is_bgr=self.is_bgr)

    def crops(self, boxes: Tensor, size: int) -> Tensor:
        """Returns the mean colours of the cells of a grid over boxes (R, 4), in CIELAB: (R, 3, size, size) float32."""
        if self.pixels.dtype == torch.uint8 and len(self.pixels) == 3:
            cells = roi_align(self.pixels[None].float() / 255, [boxes.float()], size, aligned=True)
            return rgb_to_lab(cells.flip(1) if self.is_bgr else cells)
        grey = self.pixels.float().mean(dim=0, keepdim=True)
        grey = (grey - grey.min()) / (grey.max() - grey.min()).clamp(min=1e-6) * 100
        cells = roi_align(grey[None], [boxes.float()], size, aligned=True)
        return torch.cat([cells, torch.zeros_like(cells).expand(-1, 2, -1, -1)], dim=1)
