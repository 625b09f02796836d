"""Bit masks that are stored once, however many proposals refer to them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from detectron2.layers import ROIAlign
from detectron2.structures import BitMasks
from torch import Tensor


class SharedBitMasks(BitMasks):
    """Replaces Detectron2's BitMasks: the results are the same, but indexing does not copy masks.

    Detectron2 copies a mask of the image's size for each of 512 proposals, half a gigabyte for 800 x 1216 pixels. To crop, it makes a
    float32 copy for each of the 128 proposals with an object.
    """

    def __init__(self, tensor: Tensor | np.ndarray, index: Tensor | None = None) -> None:
        """Stores the masks.

        Args:
            tensor: (M, H, W) bool, the stored masks.
            index: (N,) int64, the stored mask of each of the N masks; None for every stored mask once.
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
        """The device of the masks."""
        return self._stored.device

    def to(self, *args: Any, **kwargs: Any) -> SharedBitMasks:
        """Returns the masks on another device; see ``BitMasks.to``."""
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
        """Returns which masks have a pixel, (N,) bool."""
        found = self._stored.flatten(1).any(dim=1)
        return found if self._index is None else found[self._index]

    def crop_and_resize(self, boxes: Tensor, mask_size: int) -> Tensor:
        """Crops each mask by its box (N, 4) and resizes it; returns (N, S, S) bool on the masks' device."""
        assert len(boxes) == len(self), f"{len(boxes)} != {len(self)}"
        index = torch.arange(len(self), device=self.device) if self._index is None else self._index
        rois = torch.cat([index[:, None].to(boxes), boxes], dim=1).to(self.device)
        pooled: Tensor = ROIAlign((mask_size, mask_size), 1.0, 0, aligned=True)(self._stored[:, None].float(), rois)
        return pooled[:, 0] >= 0.5
