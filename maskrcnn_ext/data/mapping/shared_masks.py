"""Bit masks of an image's objects, of which a model may ask for hundreds: the same few, again and again."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from detectron2.layers import ROIAlign
from detectron2.structures import BitMasks
from torch import Tensor


class SharedBitMasks(BitMasks):
    """Detectron2's BitMasks, with the same results, that store a mask once however many proposals it is the ground truth of.

    Detectron2 gives each of 512 proposals a mask of the image's size, half a gigabyte for 800 x 1216 pixels, and crops a float32 copy of
    those of the 128 that have an object.
    """

    def __init__(self, tensor: Tensor | np.ndarray, index: Tensor | None = None) -> None:
        """Takes masks.

        Args:
            tensor: (M, H, W) bool, the masks that are stored.
            index: (N,) int64, which of these each mask is; None for each one once.
        """
        super().__init__(tensor)
        self._index = index

    @property
    def tensor(self) -> Tensor:
        """(N, H, W) bool."""
        return self._stored if self._index is None else self._stored[self._index]

    @tensor.setter
    def tensor(self, masks: Tensor) -> None:
        self._stored, self._index = masks, None

    @property
    def device(self) -> torch.device:
        """Of the masks."""
        return self._stored.device

    def to(self, *args: Any, **kwargs: Any) -> SharedBitMasks:
        """As BitMasks'."""
        masks = self._stored.to(*args, **kwargs)
        return SharedBitMasks(masks, None if self._index is None else self._index.to(masks.device))

    def __len__(self) -> int:
        return len(self._stored if self._index is None else self._index)

    def __getitem__(self, item: int | slice | Tensor) -> SharedBitMasks:
        if isinstance(item, int):
            number = item if self._index is None else self._index[item]
            return SharedBitMasks(self._stored[number][None])
        if self._index is not None:
            return SharedBitMasks(self._stored, self._index[item])
        if isinstance(item, Tensor) and item.dtype == torch.int64 and item.dim() == 1:
            return SharedBitMasks(self._stored, item.to(self.device))
        return SharedBitMasks(self._stored[item])

    def nonempty(self) -> Tensor:
        """As BitMasks'."""
        found = self._stored.flatten(1).any(dim=1)
        return found if self._index is None else found[self._index]

    def crop_and_resize(self, boxes: Tensor, mask_size: int) -> Tensor:
        """As BitMasks': (N, S, S) bool of the boxes (N, 4), on the masks' device."""
        assert len(boxes) == len(self), f"{len(boxes)} != {len(self)}"
        index = torch.arange(len(self), device=self.device) if self._index is None else self._index
        rois = torch.cat([index[:, None].to(boxes), boxes], dim=1).to(self.device)
        pooled: Tensor = ROIAlign((mask_size, mask_size), 1.0, 0, aligned=True)(self._stored[:, None].float(), rois)
        return pooled[:, 0] >= 0.5
