"""A function of tensors as CUDA graphs: launched at once, however many kernels it has."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import NamedTuple

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

_MOST = 32


class _Recorded(NamedTuple):
    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class CUDAGraphs:
    """Records a function once for every combination of its inputs' shapes and its settings, and replays it after that.

    The combinations that were used last are kept. All share one pool of memory, as large as what the largest needs, and for each its inputs
    and outputs. What cannot be recorded is told in one line of the log, and from then on the function runs as it is.
    """

    def __init__(
        self, function: Callable[..., tuple[Tensor, ...]], settings: Callable[[], Hashable] = tuple, most: int = _MOST
    ) -> None:
        """Wraps a function.

        Args:
            function: of tensors on one device to tensors; shapes of its results depend on those of its arguments alone.
            settings: returns the numbers that the function has, beside its arguments, and that may change.
            most: how many combinations to keep.
        """
        self.function, self.settings, self.most = function, settings, most
        self._recorded: OrderedDict[Hashable, _Recorded] = OrderedDict()
        self._pool: tuple[int, int] | None = None
        self._fails = False
        self._lock = threading.Lock()  # a graph has one place for its inputs

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The function's results, without gradients."""
        if self._fails or not inputs[0].is_cuda:
            return self.function(*inputs)
        # Tensors of the inference mode could not be written to outside it, in a later call.
        with self._lock, torch.inference_mode(False), torch.no_grad(), torch.cuda.device_of(inputs[0]):
            recorded = self._of(inputs)
            if recorded is not None:
                for own, given in zip(recorded.inputs, inputs, strict=True):
                    own.copy_(given)
                recorded.graph.replay()
                return tuple(output.clone() for output in recorded.outputs)
        return self.function(*inputs)

    def _of(self, inputs: tuple[Tensor, ...]) -> _Recorded | None:
        key = tuple(one.shape for one in inputs), self.settings()
        if key in self._recorded:
            self._recorded.move_to_end(key)
            return self._recorded[key]
        try:
            recorded = self._recorded[key] = self._record(inputs)
        except RuntimeError as error:
            logger.warning("optimize: no CUDA graphs: %s", next(iter(str(error).splitlines()), type(error).__name__))
            self._fails = True
            self._recorded.clear()
            return None
        if len(self._recorded) > self.most:
            self._recorded.popitem(last=False)
        return recorded

    def _record(self, inputs: tuple[Tensor, ...]) -> _Recorded:
        own = tuple(one.clone() for one in inputs)
        # Kernels are loaded, chosen and compiled in runs before, on a stream of their own, as PyTorch's notes on CUDA graphs ask for.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                self.function(*own)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # What other threads, such as one that pins memory, do meanwhile is not recorded, and no fault.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            outputs = self.function(*own)
        self._pool = graph.pool()
        return _Recorded(graph, own, outputs)
