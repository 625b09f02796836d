"""The masks of an image's objects as RLEs, instead of an image-sized array for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskrcnn_ext.ops.rle import RLE, decode_rle, rle_area, rle_boxes


class RLEMasks:
    """R masks of one image, stored as RLEs. The models of this package return them as ``Instances.pred_masks``.

    They take the place of the tensor (R, height, width) bool that Detectron2 returns: iterating and an integer index decode one mask,
    (height, width) bool; slices and lists of indices select masks. Only :attr:`tensor`, :meth:`numpy` and ``np.asarray`` decode all masks
    at once, so code that loops over masks, such as Detectron2's COCOEvaluator, needs memory for one.

    Attributes:
        rles: R compressed RLEs, ``{"size": [height, width], "counts": bytes}``.
        size: height and width of the image in pixels.

    Example:
        >>> masks = RLEMasks([{"size": [2, 2], "counts": b"22"}], size=(2, 2))
        >>> masks.boxes(), masks[0].shape, masks[:1], masks.tensor.shape
        (tensor([[1., 0., 2., 2.]]), torch.Size([2, 2]), RLEMasks(1 of 2 x 2), torch.Size([1, 2, 2]))
    """

    def __init__(self, rles: Sequence[RLE], size: tuple[int, int]) -> None:
        """Takes the RLEs of an image; they are not copied."""
        self.rles = list(rles)
        self.size = (int(size[0]), int(size[1]))

    def __len__(self) -> int:
        return len(self.rles)

    def __getitem__(self, item: Any) -> Any:
        """Returns what indexing the tensor returns, with masks as RLEs if whole masks are selected.

        Args:
            item: an index; a slice, indices or a boolean tensor (R); or several of these, of which the first selects masks.

        Returns:
            One mask (height, width) or a part of it for an index, a tensor for several, else RLEMasks.
        """
        first, *rest = item if isinstance(item, tuple) else (item,)
        chosen = torch.arange(len(self))[first.cpu() if isinstance(first, Tensor) else first]
        if chosen.ndim == 0:
            return _decode([self.rles[int(chosen)]], self.size)[0][tuple(rest)]
        if chosen.ndim == 1 and not rest:
            return RLEMasks([self.rles[index] for index in chosen.tolist()], self.size)
        return self.tensor[item]

    def __iter__(self) -> Iterator[Tensor]:
        return (_decode([rle], self.size)[0] for rle in self.rles)

    def __repr__(self) -> str:
        return f"RLEMasks({len(self)} of {self.size[0]} x {self.size[1]})"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Decodes all masks. Detectron2's Visualizer calls ``np.asarray``."""
        return np.asarray(self.numpy(), dtype=dtype)

    @property
    def shape(self) -> torch.Size:
        """R, height, width."""
        return torch.Size((len(self), *self.size))

    @property
    def tensor(self) -> Tensor:
        """All masks, (R, height, width) bool, decoded at each use: R bytes for each pixel of the image."""
        return self.to_dense()

    def to(self, *_: Any, **__: Any) -> RLEMasks:
        """Returns itself, since RLEs are on no device. Detectron2's ``Instances.to`` calls it."""
        return self

    def cpu(self) -> RLEMasks:
        """Returns itself."""
        return self

    def detach(self) -> RLEMasks:
        """Returns itself."""
        return self

    def numpy(self) -> np.ndarray:
        """Decodes all masks to (R, height, width) bool."""
        return np.asarray(self.tensor.numpy())

    def any(self, dim: int) -> Tensor:
        """Returns ``tensor.any(dim)``. The union of all masks, ``dim=0``, needs memory for one."""
        if dim != 0:
            return self.tensor.any(dim)
        union = torch.zeros(self.size, dtype=torch.bool)
        for mask in self:
            union |= mask
        return union

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
