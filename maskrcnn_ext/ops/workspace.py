"""Memory that is used again: new memory costs as much as writing to it twice, since the system must hand over every page."""

from __future__ import annotations

import math
import mmap
import sys
import threading
from dataclasses import dataclass, field

import torch
from torch import Tensor

# Smaller tensors are PyTorch's own: the C library keeps their memory.
_MIN_BYTES = 1 << 20
# Of addresses: only what is written to becomes memory.
_ARENA_BYTES = 1 << 30
_ALIGNMENT = 4096
# What `sys.getrefcount` counts of memory that no tensor stands on: the block's reference and its own argument.
_UNUSED = 2


@dataclass
class _Block:
    """Part of an arena that a tensor stands on for as long as it refers to `memory`."""

    start: int
    end: int
    memory: memoryview


@dataclass
class _Arena:
    """Addresses, and what is taken of them, in order."""

    memory: mmap.mmap
    blocks: list[_Block] = field(default_factory=list)

    def take(self, size: int) -> memoryview | None:
        """Takes the first gap of a size, so that what is used stays close together; None where there is none."""
        self.blocks = [block for block in self.blocks if sys.getrefcount(block.memory) > _UNUSED]
        start, index = 0, 0
        for block in self.blocks:
            if block.start - start >= size:
                break
            start, index = -(-block.end // _ALIGNMENT) * _ALIGNMENT, index + 1
        if start + size > len(self.memory):
            return None
        taken = memoryview(self.memory)[start : start + size]
        self.blocks.insert(index, _Block(start, start + size, taken))
        return taken


class Workspace(threading.local):
    """Makes tensors of memory on which no other tensor stands any more, in each thread of its own.

    A tensor and its views hold their memory for as long as any of them is there, as always; what a caller keeps is never given out again.
    As much is kept as was ever needed at one time.
    """

    def __init__(self) -> None:
        """Holds nothing at first."""
        self._arenas: list[_Arena] = []

    def __reduce__(self) -> tuple[type[Workspace], tuple[()]]:
        """A copy of it, and what another process reads, is a new one."""
        return Workspace, ()

    def empty(self, *shape: int) -> Tensor:
        """Returns an uninitialised float32 tensor on the CPU."""
        size = 4 * math.prod(shape)
        if size < _MIN_BYTES:
            return torch.empty(shape)
        memory = next((taken for arena in self._arenas if (taken := arena.take(size)) is not None), None)
        if memory is None:
            self._arenas.append(_Arena(_reserve(size)))
            memory = self._arenas[-1].take(size)
            assert memory is not None
        return torch.frombuffer(memory, dtype=torch.float32).view(shape)

    def channels_last(self, number: int, channels: int, height: int, width: int) -> Tensor:
        """Returns an uninitialised float32 tensor (N, C, H, W), whose memory is in the order (N, H, W, C)."""
        return self.empty(number, height, width, channels).permute(0, 3, 1, 2)


def _reserve(size: int) -> mmap.mmap:
    try:
        memory = mmap.mmap(-1, max(size, _ARENA_BYTES))
    except OSError:  # where addresses are limited
        memory = mmap.mmap(-1, size)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory
