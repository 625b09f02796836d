"""Reuse of memory for tensors. Fresh memory costs as much as writing to it twice, because the system must map every page."""

from __future__ import annotations

import math
import mmap
import sys
import threading
from dataclasses import dataclass, field

import torch
from torch import Tensor

# Smaller tensors are allocated by PyTorch: the C library keeps their memory.
_MIN_BYTES = 1 << 20
# Address space; pages become memory when they are written.
_ARENA_BYTES = 1 << 30
_ALIGNMENT = 4096
# `sys.getrefcount` of memory that no tensor uses: the reference of the block and the argument.
_UNUSED = 2


@dataclass
class _Block:
    """Part of an arena, in use as long as a tensor refers to `memory`."""

    start: int
    end: int
    memory: memoryview


@dataclass
class _Arena:
    """An address range and its blocks in use, in order."""

    memory: mmap.mmap
    blocks: list[_Block] = field(default_factory=list)

    def take(self, size: int) -> memoryview | None:
        """Returns the first gap of a size, which keeps used memory close together; None if no gap is large enough."""
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
    """Allocates tensors from memory that no live tensor uses. One pool per thread.

    A tensor and its views keep their memory as usual; memory is reused when the last of them is deleted. The pool keeps as much memory as
    was ever needed at one time. After a fork, each process has its own copy.
    """

    def __init__(self) -> None:
        """Starts with an empty pool."""
        self._arenas: list[_Arena] = []

    def __reduce__(self) -> tuple[type[Workspace], tuple[()]]:
        """Copies and pickles as a new, empty workspace."""
        return Workspace, ()

    def empty(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Returns an uninitialised tensor on the CPU."""
        size = dtype.itemsize * math.prod(shape)
        if size < _MIN_BYTES:
            return torch.empty(shape, dtype=dtype)
        memory = next((taken for arena in self._arenas if (taken := arena.take(size)) is not None), None)
        if memory is None:
            self._arenas.append(_Arena(_reserve(size)))
            memory = self._arenas[-1].take(size)
            assert memory is not None
        return torch.frombuffer(memory, dtype=dtype).view(shape)

    def channels_last(
        self, number: int, channels: int, height: int, width: int, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Returns an uninitialised tensor (N, C, H, W), whose memory is in the order (N, H, W, C)."""
        return self.empty(number, height, width, channels, dtype=dtype).permute(0, 3, 1, 2)


def _reserve(size: int) -> mmap.mmap:
    try:
        memory = _map(max(size, _ARENA_BYTES))
    except OSError:  # limited address space
        memory = _map(size)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def _map(size: int) -> mmap.mmap:
    """Returns fresh memory. It is private: by default, a process and its forks would write into the same pages."""
    if sys.platform == "win32":
        return mmap.mmap(-1, size)
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
