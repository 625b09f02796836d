"""A mask cut into patches, and the three kinds of them."""

from __future__ import annotations

import torch
from torch import Tensor

BACKGROUND, FOREGROUND, MIXED = 0, 1, 2


def to_patches(masks: Tensor, size: int) -> Tensor:
    """Cuts (R, S, S) into (R, S / size, S / size, size, size)."""
    return masks.unflatten(2, (-1, size)).unflatten(1, (-1, size)).transpose(2, 3)


def from_patches(patches: Tensor) -> Tensor:
    """Puts (R, P, P, size, size) together to (R, P * size, P * size)."""
    return patches.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def patch_kinds(patches: Tensor) -> Tensor:
    """Says of every patch (..., size, size) of 0 and 1 whether it is all background, all foreground or mixed: (...) int64."""
    mean = patches.flatten(-2).float().mean(-1)
    kinds = torch.full(mean.shape, MIXED, device=mean.device)
    kinds[mean == 0] = BACKGROUND
    kinds[mean == 1] = FOREGROUND
    return kinds


def fill_patches(kinds: Tensor, mixed: Tensor) -> Tensor:
    """Returns ``mixed`` (..., size, size), zero in background patches and one in foreground patches by ``kinds`` (...)."""
    kinds = kinds[..., None, None]
    return mixed.masked_fill(kinds == BACKGROUND, 0).masked_fill(kinds == FOREGROUND, 1)
