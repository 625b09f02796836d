"""Memory that is used again: new memory costs as much as writing to it twice, since the system must hand over every page."""

from __future__ import annotations

import math
import mmap
import sys
import threading
from dataclasses import dataclass

import torch
from torch import Tensor

# Smaller tensors are PyTorch's own: the C library keeps their memory.
_MIN_BYTES = 1 << 20
# Requests after which memory that nobody has used is given back: more than one image makes.
_KEEP = 500
# What `sys.getrefcount` counts of memory that no tensor stands on: the block's reference and its own argument.
_UNUSED = 2


@dataclass
class _Block:
    memory: mmap.mmap
    used: int


class Workspace(threading.local):
    """Makes tensors of memory on which no other tensor stands any more, in each thread of its own.

    A tensor and its views hold their memory for as long as any of them is there, as always; what a caller keeps is never given out again.
    """

    def __init__(self) -> None:
        """Holds nothing at first."""
        self._blocks: list[_Block] = []
        self._requests = 0

    def empty(self, *shape: int) -> Tensor:
        """Returns an uninitialised float32 tensor on the CPU."""
        size = 4 * math.prod(shape)
        if size < _MIN_BYTES:
            return torch.empty(shape)
        self._requests += 1
        free = [
            block
            for block in self._blocks
            if size <= len(block.memory) <= 2 * size and sys.getrefcount(block.memory) == _UNUSED
        ]
        block = min(free, key=lambda one: len(one.memory), default=None)
        if block is None:
            # What is dropped here lives on for as long as a tensor needs it.
            self._blocks = [one for one in self._blocks if self._requests - one.used < _KEEP]
            block = _Block(mmap.mmap(-1, size), 0)
            if hasattr(mmap, "MADV_HUGEPAGE"):
                block.memory.madvise(mmap.MADV_HUGEPAGE)
            self._blocks.append(block)
        block.used = self._requests
        return torch.frombuffer(block.memory, dtype=torch.float32, count=size // 4).view(shape)

    def channels_last(self, number: int, channels: int, height: int, width: int) -> Tensor:
        """Returns an uninitialised float32 tensor (N, C, H, W), whose memory is in the order (N, H, W, C)."""
        return self.empty(number, height, width, channels).permute(0, 3, 1, 2)
