"""Kernels that are compared with plain operators of PyTorch on their first real input, before their results are trusted."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

from maskrcnn_ext.common.text import first_line

logger = logging.getLogger(__name__)

# Largest difference that rounding explains, as a share of the largest value.
_ERRORS = {torch.float32: 1e-3, torch.float64: 1e-6, torch.bfloat16: 3e-2, torch.float16: 1e-2}
# Share of values that may differ more: rounding may decide otherwise about a sample at the border, or a box that is nearly suppressed.
_OTHERS = 1e-3


class SelfChecks:
    """Runs fast kernels, each of which is compared once with plain operators that compute the same.

    The first call of a kernel computes both. If the kernel fails, or its results differ by more than rounding, one warning names the
    difference or the error, and the plain operators are used from then on.

    Example::

        checks = SelfChecks()
        pooled = checks.run("RoIAlign", lambda: kernel(x), lambda: plain(x))
    """

    def __init__(self) -> None:
        """Starts without checked kernels."""
        self._is_right: dict[Hashable, bool] = {}
        self._lock = threading.RLock()

    def run(
        self,
        name: str,
        kernel: Callable[[], Sequence[Tensor]],
        plain: Callable[[], Sequence[Tensor]],
        *,
        variant: Hashable = None,
        is_real: bool = True,
        others: float = _OTHERS,
    ) -> Sequence[Tensor]:
        """Returns the results of a kernel, or of the plain operators if the kernel is wrong.

        Args:
            name: of the kernel, for the warning.
            kernel: computes the results quickly.
            plain: computes the same results.
            variant: what the kernel is compiled for; each variant is compared once.
            others: share of values that may differ by more than rounding.
            is_real: whether the input says anything about the kernel, unlike one without RoIs. If not, it is not compared.
        """
        key = name, variant
        is_right = self._is_right.get(key)
        if is_right is None and is_real and not _is_recording():
            with self._lock:
                if key not in self._is_right:
                    return self._compare(key, kernel, plain, others)
                is_right = self._is_right[key]
        return plain() if is_right is False else kernel()

    def _compare(
        self,
        key: tuple[str, Hashable],
        kernel: Callable[[], Sequence[Tensor]],
        plain: Callable[[], Sequence[Tensor]],
        others: float,
    ) -> Sequence[Tensor]:
        expected = plain()
        try:
            found = kernel()
            reason = find_difference(found, expected, others)
        except Exception as error:  # of Triton, its compiler or the driver
            found, reason = expected, f"{type(error).__name__}: {first_line(error)}"
        self._is_right[key] = reason is None
        if reason is None:
            return found
        logger.warning("%s on the GPU: %s: PyTorch's own operators, which are slower, are used instead", key[0], reason)
        return expected


def find_difference(found: Sequence[Tensor], expected: Sequence[Tensor], others: float = _OTHERS) -> str | None:
    """Returns how tensors differ from those expected in a phrase, or None if rounding explains it, but for a share of `others`."""
    if len(found) != len(expected):
        return f"{len(found)} results, not {len(expected)}"
    for one, other in zip(found, expected, strict=True):
        if (one.shape, one.dtype) != (other.shape, other.dtype):
            return f"{tuple(one.shape)} of {one.dtype}, not {tuple(other.shape)} of {other.dtype}"
        if not one.numel():
            continue
        if one.is_floating_point():
            finite = other[other.isfinite()]
            largest = float(finite.abs().max()) if finite.numel() else 0.0
            allowed = _ERRORS[one.dtype] * largest
            differs = ~torch.isclose(one, other, rtol=0, atol=allowed, equal_nan=True)
        else:
            largest, differs = 0.0, one != other
        share = float(differs.float().mean())
        if share > others:
            worst = float((one.double() - other.double()).abs().nan_to_num(torch.inf).max())
            return f"{100 * share:.3g} % of the values differ, by up to {worst:.3g} (the largest is {largest:.3g})"
    return None


def _is_recording() -> bool:
    """Whether a CUDA graph is being recorded, in which no result can be read."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
