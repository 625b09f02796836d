"""The masks of one image's objects as RLEs, in the place of an array of the image's size for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from pycocotools import mask as mask_util
from torch import Tensor

from maskrcnn_ext.ops.mask_paste import rle_to_dense


class RLEMasks:
    """R masks of an image of one size; what ``Instances.pred_masks`` holds when masks stay small.

    It is indexed and concatenated as Detectron2's own structures are. Iterating decodes one mask at a time, (height, width) bool, so that
    code which goes over masks, such as Detectron2's COCOEvaluator, needs memory for one.

    Attributes:
        rles: R compressed RLEs, ``{"size": [height, width], "counts": bytes}``.
        size: height and width of the image in pixels.
    """

    def __init__(self, rles: Sequence[dict[str, Any]], size: tuple[int, int]) -> None:
        """Takes RLEs of images of that size; not copied."""
        self.rles = list(rles)
        self.size = (int(size[0]), int(size[1]))

    def __len__(self) -> int:
        return len(self.rles)

    def __getitem__(self, item: int | slice | Tensor) -> RLEMasks:
        """Returns the masks that an index, a slice, indices or a mask of booleans (R) select."""
        if isinstance(item, int):
            return RLEMasks([self.rles[item]], self.size)
        chosen = torch.arange(len(self.rles))[item if isinstance(item, slice) else item.cpu()]
        return RLEMasks([self.rles[index] for index in chosen.tolist()], self.size)

    def __iter__(self) -> Iterator[Tensor]:
        return (rle_to_dense([rle], self.size)[0] for rle in self.rles)

    def __repr__(self) -> str:
        return f"RLEMasks({len(self)} of {self.size[0]} x {self.size[1]})"

    def to(self, *_: Any, **__: Any) -> RLEMasks:
        """Returns itself: RLEs are on no device. Detectron2's ``Instances.to`` calls it."""
        return self

    @staticmethod
    def cat(masks: Sequence[RLEMasks]) -> RLEMasks:
        """Joins masks of images of the same size.

        Raises:
            ValueError: nothing, or sizes that differ.
        """
        if len({one.size for one in masks}) != 1:
            raise ValueError(f"masks of one size are expected, not of {sorted({one.size for one in masks})}")
        return RLEMasks([rle for one in masks for rle in one.rles], masks[0].size)

    def to_dense(self) -> Tensor:
        """Decodes all: (R, height, width) bool, R bytes for every pixel of the image."""
        return rle_to_dense(self.rles, self.size)

    def areas(self) -> Tensor:
        """Numbers of pixels: (R) int64."""
        # One by one: of 256 and more at once, pycocotools 2.0.11 raises an OverflowError.
        return torch.tensor([int(mask_util.area(rle)) for rle in self.rles], dtype=torch.int64)

    def boxes(self) -> Tensor:
        """Tight boxes: (R, 4) float32, x0, y0, x1, y1 in pixels of the image; zeros for an empty mask."""
        boxes = np.asarray(mask_util.toBbox(self.rles), dtype=np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        return torch.from_numpy(boxes)
