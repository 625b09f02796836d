"""What the labels of an image leave open: pixels of ignore regions, and classes that are not labelled in it."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from maskrcnn_ext.ops.per_image import PerImage


class IgnoreRegion:
    """The union of an image's ignore regions, with the share of boxes that it covers.

    Example:
        >>> region = IgnoreRegion(torch.ones(4, 4, dtype=torch.bool))
        >>> region.share_of(torch.tensor([[2.0, 0.0, 6.0, 4.0]]))
        tensor([0.5000])
    """

    def __init__(self, mask: Tensor) -> None:
        """Stores the mask (H, W), bool."""
        self.mask = mask

    def to(self, *args: Any, **kwargs: Any) -> IgnoreRegion:
        """Returns the region on another device."""
        return IgnoreRegion(self.mask.to(*args, **kwargs))

    @cached_property
    def _sums(self) -> Tensor:
        """(H + 1, W + 1) float64: the pixels of the region above and left of each corner (a summed-area table)."""
        return F.pad(self.mask.double().cumsum(0).cumsum(1), (1, 0, 1, 0))

    def _sums_at(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns the area of the region above and left of points, which is exact between corners too."""
        height, width = self.mask.shape
        x, y = x.double().clamp(0, width), y.double().clamp(0, height)
        left, upper = x.long().clamp(max=width - 1), y.long().clamp(max=height - 1)
        dx, dy = x - left, y - upper
        sums = self._sums
        above = torch.lerp(sums[upper, left], sums[upper, left + 1], dx)
        return torch.lerp(above, torch.lerp(sums[upper + 1, left], sums[upper + 1, left + 1], dx), dy)

    def share_of(self, boxes: Tensor) -> Tensor:
        """Returns the region's intersection with each box over the area of the box (IoA), exact to float64.

        Args:
            boxes: (N, 4) as x0, y0, x1, y1 in pixels. What lies outside of the image counts to the area.

        Returns:
            (N,) float32 in [0, 1]; 0 for a box without an area.
        """
        x0, y0, x1, y1 = boxes.double().unbind(dim=1)
        inside = self._sums_at(x1, y1) - self._sums_at(x0, y1) - self._sums_at(x1, y0) + self._sums_at(x0, y0)
        area = (x1 - x0) * (y1 - y0)
        return torch.where(area > 0, inside / area, 0.0).float().clamp(0, 1)

    def cells_of(self, boxes: Tensor, size: int) -> Tensor:
        """Returns which cells of a grid over each box lie in the region by half of their area or more.

        Args:
            boxes: (N, 4) in pixels.
            size: side S of the grid.

        Returns:
            (N, S, S) bool.
        """
        steps = torch.linspace(0, 1, size + 1, dtype=torch.float64, device=boxes.device)
        x0, y0, x1, y1 = boxes.double()[:, :, None].unbind(dim=1)
        x, y = torch.lerp(x0, x1, steps), torch.lerp(y0, y1, steps)
        inside = self._sums_at(x[:, None, :], y[:, :, None]).diff(dim=1).diff(dim=2)
        area = y.diff(dim=1)[:, :, None] * x.diff(dim=1)[:, None, :]
        return (area > 0) & (inside >= (0.5 - 1e-9) * area)

    def contains(self, points: Tensor) -> Tensor:
        """Returns which points (..., 2), x and y in pixels, lie in the region, (...) bool; none outside of the image."""
        height, width = self.mask.shape
        x, y = points.floor().long().unbind(dim=-1)
        inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
        return inside & self.mask[y.clamp(0, height - 1), x.clamp(0, width - 1)]


class Unlabelled(PerImage):
    """What an image's labels leave open, as a field ``gt_unlabelled`` of Detectron2's Instances.

    Detectron2's own heads carry the field along and do not read it.

    Attributes:
        region: the ignore regions; None for an image without.
        labelled_classes: (K,) int64, the classes that are labelled in this image; None if all are.
    """

    def __init__(self, count: int, region: IgnoreRegion | None, labelled_classes: Tensor | None) -> None:
        """Stores the value and the number of objects."""
        super().__init__(count)
        self.region = region
        self.labelled_classes = labelled_classes

    def to(self, *args: Any, **kwargs: Any) -> Unlabelled:
        """Returns the same on another device."""
        region, classes = (
            None if part is None else part.to(*args, **kwargs) for part in (self.region, self.labelled_classes)
        )
        return Unlabelled(len(self), region, classes)
