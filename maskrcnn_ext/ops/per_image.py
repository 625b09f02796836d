"""A value of an image as a field of Detectron2's Instances, which index every field by object."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

Self = TypeVar("Self", bound="PerImage")


class PerImage:
    """Base of values that all objects of an image share: only the number of objects is stored beside them.

    Example:
        >>> len(PerImage(3)[torch.tensor([0, 2])])
        2
    """

    def __init__(self, count: int) -> None:
        """Stores the number of objects."""
        self._count = count

    def __len__(self) -> int:
        return self._count

    def repeat(self: Self, count: int) -> Self:
        """Returns the same value for another number of objects."""
        repeated = copy.copy(self)
        repeated._count = count
        return repeated

    def __getitem__(self: Self, item: int | slice | Tensor | Sequence[int]) -> Self:
        """Returns the same value for the selected objects."""
        if isinstance(item, int):
            return self.repeat(1)
        if isinstance(item, slice):
            return self.repeat(len(range(self._count)[item]))
        if isinstance(item, Tensor) and item.dtype == torch.bool:
            return self.repeat(int(item.sum()))
        return self.repeat(len(item))
