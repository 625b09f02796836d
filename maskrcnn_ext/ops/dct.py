"""Masks as low-frequency DCT coefficients: two matrix products either way."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def dct_basis(size: int, num_frequencies: int) -> Tensor:
    """The first rows of the orthonormal DCT-II matrix.

    Args:
        size: samples of the signal.
        num_frequencies: rows wanted, at most ``size``.

    Returns:
        (num_frequencies, size) float32; ``basis @ signal`` are the coefficients, ``basis.T @ coefficients`` is the signal.
    """
    # In float64, so that the rows are orthonormal to float32's last digit.
    positions = torch.arange(size, dtype=torch.float64) + 0.5
    frequencies = torch.arange(num_frequencies, dtype=torch.float64)
    basis = torch.cos(math.pi / size * frequencies[:, None] * positions) * math.sqrt(2 / size)
    basis[0] /= math.sqrt(2)
    return basis.to(torch.float32)


def zigzag(num_coefficients: int) -> list[tuple[int, int]]:
    """The (row, column) of the first coefficients in the zig-zag order of JPEG (ITU-T T.81, figure 5): low frequencies first."""
    order: list[tuple[int, int]] = []
    diagonal = 0
    while len(order) < num_coefficients:
        cells = [(diagonal - column, column) for column in range(diagonal + 1)]
        order += cells if diagonal % 2 == 0 else cells[::-1]
        diagonal += 1
    return order[:num_coefficients]


class DCTCodec(nn.Module):
    """Square masks to the first zig-zag coefficients of their two-dimensional DCT, and back (DCT-Mask, arXiv:2011.09876, section 3.1)."""

    def __init__(self, size: int, num_coefficients: int) -> None:
        """Prepares the basis.

        Args:
            size: side of the masks in pixels.
            num_coefficients: length of the vector; as many as the lowest anti-diagonals of a size x size matrix hold.
        """
        super().__init__()
        order = zigzag(num_coefficients)
        side = max(max(cell) for cell in order) + 1
        if side > size:
            raise ValueError(
                f"{num_coefficients} coefficients reach frequency {side - 1}: masks of {size} px have {size}"
            )
        self.size, self.side = size, side
        # Constants, which a checkpoint need not hold.
        self.register_buffer("basis", dct_basis(size, side), persistent=False)
        self.register_buffer("order", torch.tensor([row * side + column for row, column in order]), persistent=False)

    def encode(self, masks: Tensor) -> Tensor:
        """Turns masks (..., size, size) into vectors (..., num_coefficients)."""
        return (self.basis @ masks @ self.basis.T).flatten(-2)[..., self.order]

    def decode(self, vectors: Tensor) -> Tensor:
        """Turns vectors (..., num_coefficients) into masks (..., size, size) whose values lie near 0 and 1."""
        # Not by assignment to an index, of which the ONNX exporter makes a graph that cannot be read.
        spectrum = vectors.new_zeros((*vectors.shape[:-1], self.side * self.side)).index_copy(-1, self.order, vectors)
        basis = self.basis.to(vectors.dtype)
        return basis.T @ spectrum.unflatten(-1, (self.side, self.side)) @ basis
