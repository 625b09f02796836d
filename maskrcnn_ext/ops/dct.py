"""Masks as low-frequency DCT coefficients (two matrix products either way), and masks cut into patches."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

BACKGROUND, FOREGROUND, MIXED = 0, 1, 2


def dct_basis(size: int, num_frequencies: int) -> Tensor:
    """Returns the first rows of the orthonormal DCT-II matrix.

    Args:
        size: samples of the signal.
        num_frequencies: number of rows, at most ``size``.

    Returns:
        (num_frequencies, size) float32; ``basis @ signal`` computes the coefficients, ``basis.T @ coefficients`` the signal.
    """
    # In float64, so that the rows are orthonormal to the last digit of float32.
    positions = torch.arange(size, dtype=torch.float64) + 0.5
    frequencies = torch.arange(num_frequencies, dtype=torch.float64)
    basis = torch.cos(math.pi / size * frequencies[:, None] * positions) * math.sqrt(2 / size)
    basis[0] /= math.sqrt(2)
    return basis.to(torch.float32)


def zigzag(num_coefficients: int) -> list[tuple[int, int]]:
    """Returns the (row, column) of the first coefficients in JPEG's zig-zag order (ITU-T T.81, figure 5), low frequencies first."""
    order: list[tuple[int, int]] = []
    diagonal = 0
    while len(order) < num_coefficients:
        cells = [(diagonal - column, column) for column in range(diagonal + 1)]
        order += cells if diagonal % 2 == 0 else cells[::-1]
        diagonal += 1
    return order[:num_coefficients]


class DCTCodec(nn.Module):
    """Converts square masks to the first zig-zag coefficients of their 2D DCT, and back (DCT-Mask, arXiv:2011.09876, section 3.1)."""

    def __init__(self, size: int, num_coefficients: int) -> None:
        """Computes the basis.

        Args:
            size: side of the masks in pixels.
            num_coefficients: length of the vector; at most the size of the lowest anti-diagonals of a size x size matrix.
        """
        super().__init__()
        order = zigzag(num_coefficients)
        side = max(max(cell) for cell in order) + 1
        if side > size:
            raise ValueError(
                f"{num_coefficients} coefficients reach frequency {side - 1}: masks of {size} px have {size}"
            )
        self.size, self.side = size, side
        # Constants, not saved in checkpoints.
        self.register_buffer("basis", dct_basis(size, side), persistent=False)
        self.register_buffer("order", torch.tensor([row * side + column for row, column in order]), persistent=False)

    def encode(self, masks: Tensor) -> Tensor:
        """Returns vectors (..., num_coefficients) of masks (..., size, size)."""
        return (self.basis @ masks @ self.basis.T).flatten(-2)[..., self.order]

    def decode(self, vectors: Tensor) -> Tensor:
        """Returns masks (..., size, size), with values near 0 and 1, of vectors (..., num_coefficients)."""
        # index_copy, because the ONNX exporter writes an invalid graph for an indexed assignment.
        spectrum = vectors.new_zeros((*vectors.shape[:-1], self.side * self.side)).index_copy(-1, self.order, vectors)
        basis = self.basis.to(vectors.dtype)
        return basis.T @ spectrum.unflatten(-1, (self.side, self.side)) @ basis


def to_patches(masks: Tensor, size: int) -> Tensor:
    """Returns patches (R, S / size, S / size, size, size) of masks (R, S, S)."""
    return masks.unflatten(2, (-1, size)).unflatten(1, (-1, size)).transpose(2, 3)


def from_patches(patches: Tensor) -> Tensor:
    """Returns masks (R, P * size, P * size) of patches (R, P, P, size, size)."""
    return patches.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def patch_kinds(patches: Tensor) -> Tensor:
    """Returns (...) int64: whether each patch (..., size, size) of 0 and 1 is all background, all foreground or mixed."""
    mean = patches.flatten(-2).float().mean(-1)
    kinds = torch.full(mean.shape, MIXED, device=mean.device)
    kinds[mean == 0] = BACKGROUND
    kinds[mean == 1] = FOREGROUND
    return kinds


def fill_patches(kinds: Tensor, mixed: Tensor) -> Tensor:
    """Returns ``mixed`` (..., size, size) with background patches set to 0 and foreground patches to 1, by ``kinds`` (...)."""
    kinds = kinds[..., None, None]
    return mixed.masked_fill(kinds == BACKGROUND, 0).masked_fill(kinds == FOREGROUND, 1)
