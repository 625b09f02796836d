"""The masks of an image's objects as RLEs, instead of an image-sized array for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from maskrcnn_ext.ops.rle import RLE, decode_rle, rle_area, rle_boxes


class RLEMasks:
    """R masks of one image, stored as RLEs. The models of this package return them as ``Instances.pred_masks``.

    Indexing and concatenation work as for Detectron2's structures. Iterating decodes one mask at a time, (height, width) bool, so code
    that loops over masks, such as Detectron2's COCOEvaluator, needs memory for one.

    Attributes:
        rles: R compressed RLEs, ``{"size": [height, width], "counts": bytes}``.
        size: height and width of the image in pixels.

    Example:
        >>> masks = RLEMasks([{"size": [2, 2], "counts": b"22"}], size=(2, 2))
        >>> masks.boxes(), masks.to_dense().shape
        (tensor([[1., 0., 2., 2.]]), torch.Size([1, 2, 2]))
    """

    def __init__(self, rles: Sequence[RLE], size: tuple[int, int]) -> None:
        """Takes the RLEs of an image; they are not copied."""
        self.rles = list(rles)
        self.size = (int(size[0]), int(size[1]))

    def __len__(self) -> int:
        return len(self.rles)

    def __getitem__(self, item: int | slice | Tensor) -> RLEMasks:
        """Returns the masks that an index, a slice, a tensor of indices or a boolean tensor (R) selects."""
        if isinstance(item, int):
            return RLEMasks([self.rles[item]], self.size)
        chosen = torch.arange(len(self.rles))[item if isinstance(item, slice) else item.cpu()]
        return RLEMasks([self.rles[index] for index in chosen.tolist()], self.size)

    def __iter__(self) -> Iterator[Tensor]:
        return (_decode([rle], self.size)[0] for rle in self.rles)

    def __repr__(self) -> str:
        return f"RLEMasks({len(self)} of {self.size[0]} x {self.size[1]})"

    def to(self, *_: Any, **__: Any) -> RLEMasks:
        """Returns itself, since RLEs are on no device. Detectron2's ``Instances.to`` calls it."""
        return self

    @staticmethod
    def cat(masks: Sequence[RLEMasks]) -> RLEMasks:
        """Concatenates masks of images of the same size.

        Raises:
            ValueError: `masks` is empty, or the sizes differ.
        """
        if len({one.size for one in masks}) != 1:
            raise ValueError(f"masks of one size are expected, not of {sorted({one.size for one in masks})}")
        return RLEMasks([rle for one in masks for rle in one.rles], masks[0].size)

    def to_dense(self) -> Tensor:
        """Decodes all masks to (R, height, width) bool: R bytes for each pixel of the image."""
        return _decode(self.rles, self.size)

    def areas(self) -> Tensor:
        """Returns the numbers of pixels, (R) int64."""
        return torch.tensor([rle_area(rle) for rle in self.rles], dtype=torch.int64)

    def boxes(self) -> Tensor:
        """Returns tight boxes, (R, 4) float32 x0, y0, x1, y1 in pixels of the image; zeros for an empty mask."""
        return torch.from_numpy(rle_boxes(self.rles)).float()


def _decode(rles: Sequence[RLE], size: tuple[int, int]) -> Tensor:
    """Decodes R compressed RLEs of an image of `size` (height, width) to (R, height, width) bool.

    Raises:
        ValueError: an RLE has another size.
    """
    dense = torch.empty((len(rles), *size), dtype=torch.bool)
    for mask, rle in zip(dense, rles, strict=True):
        if tuple(rle["size"]) != tuple(size):
            raise ValueError(
                f"an RLE of size {list(rle['size'])}, but its image is {size[0]} x {size[1]} (height, width)"
            )
        mask.copy_(torch.from_numpy(decode_rle(rle)))
    return dense
