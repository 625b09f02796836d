"""Where an image lies in the padded one, and its boxes in the image as stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

Size = tuple[int, int]
# The pyramid's coarsest level has this stride.
STRIDE = 64


def canvas_size(image_sizes: Sequence[Sequence[int]], square_size: int) -> Size:
    """Height and width that images (height, width) are padded to: multiples of 64 that hold all of them, and `square_size` at least."""
    height, width = (-(-max(sides) // STRIDE) * STRIDE for sides in zip(*image_sizes, strict=True))
    return max(height, square_size), max(width, square_size)


def centred(image_size: Sequence[int], canvas: Sequence[int]) -> tuple[int, int, int, int]:
    """The window (x0, y0, x1, y1) of an image (height, width) in the middle of a canvas; of an odd rest, the end has more."""
    height, width = image_size
    top, left = (canvas[0] - height) // 2, (canvas[1] - width) // 2
    return left, top, left + width, top + height


@dataclass(frozen=True)
class Frame:
    """Between the padded image and the image that was put into it.

    Matterport scales a window by its distance from the first pixel's to the last pixel's coordinate, w - 1 to W - 1. Detectron2 scales by
    W / w. Boxes that come out of here are such that Detectron2's scaling makes Matterport's of them.

    Attributes:
        window: (x0, y0, x1, y1) of the image, in pixels of the padded one.
        output_size: (height, width) of the image as stored.
        round_boxes: give whole pixels of the image as stored, as Matterport's ``detect`` does, a half to the even one.
    """

    window: tuple[int, int, int, int]
    output_size: Size
    round_boxes: bool = False

    def outward(self, boxes: Tensor) -> Tensor:
        """Boxes (R, 4) of the padded image in pixels of the image."""
        origin, last, scale, pixel = self._numbers(boxes)
        stored = (boxes - origin - last) * scale + last
        return (stored.round() if self.round_boxes else stored) * pixel

    def inward(self, boxes: Tensor) -> Tensor:
        """The opposite of :meth:`outward` without rounding."""
        origin, last, scale, pixel = self._numbers(boxes)
        return (boxes / pixel - last) / scale + last + origin

    def _numbers(self, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Where the image begins, what lies between a box's end and its last pixel, Matterport's scale, and what undoes Detectron2's."""
        x0, y0, x1, y1 = self.window
        inner, stored = (x1 - x0, y1 - y0), self.output_size[::-1]
        # An image of a single pixel has no extent.
        scale = [max(outer - 1, 1) / max(side - 1, 1) for side, outer in zip(inner, stored, strict=True)]
        pixel = [side / outer for side, outer in zip(inner, stored, strict=True)]
        origin, last, scale, pixel = (
            boxes.new_tensor(numbers) for numbers in ((x0, y0, x0, y0), (0, 0, 1, 1), scale * 2, pixel * 2)
        )
        return origin, last, scale, pixel
