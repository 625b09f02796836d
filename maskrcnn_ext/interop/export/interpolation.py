"""Antialiased bicubic interpolation as matrix products, for exporters without an operator for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class PortableInterpolation(TorchFunctionMode):
    """Computes ``F.interpolate(..., mode="bicubic", antialias=True)`` by :func:`resize_bicubic` in its block.

    Plain ViTs of timm resample their position embeddings in this way, for each size of images. ONNX has no such operator before opset 18.

    Example:
        >>> with PortableInterpolation():
        ...     tuple(F.interpolate(torch.zeros(1, 2, 14, 14), (20, 28), mode="bicubic", antialias=True).shape)
        (1, 2, 20, 28)
    """

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Calls the function, or replaces it."""
        del types
        given = kwargs or {}
        if (
            function is F.interpolate
            and given.get("antialias")
            and given.get("mode") == "bicubic"
            and not given.get("align_corners")
            and isinstance(size := given.get("size"), Sequence)
        ):
            return resize_bicubic(args[0] if args else given["input"], size)
        return function(*args, **given)


def resize_bicubic(x: Tensor, size: Sequence[int | Tensor]) -> Tensor:
    """Resizes maps as ``F.interpolate(x, size, mode="bicubic", antialias=True)`` does, in operators that every tracer knows.

    Args:
        x: (N, C, H, W), float.
        size: (height, width) of the result; a tracer's sizes stay variable.

    Returns:
        (N, C, height, width).

    Example:
        >>> resize_bicubic(torch.ones(1, 1, 2, 2), (3, 4)).shape
        torch.Size([1, 1, 3, 4])
    """
    rows, columns = (_resampling_matrix(x.shape[axis], length, x) for axis, length in zip((2, 3), size, strict=True))
    return rows @ x @ columns.T


def _resampling_matrix(source: int | Tensor, target: int | Tensor, like: Tensor) -> Tensor:
    """Returns the weights (target, source) of the positions of a side before for those after. Their sum is 1 for each position after.

    The kernel is Keys' cubic convolution ("Cubic Convolution Interpolation for Digital Image Processing", 1981, equation 4) with a = -0.5,
    which is as wide as the result's spacing where a side shrinks.
    """
    before = torch.arange(source, device=like.device).to(like.dtype) + 0.5
    after = torch.arange(target, device=like.device).to(like.dtype) + 0.5
    # A tracer's sizes are tensors; those of eager mode are numbers.
    scale = torch.as_tensor(source, device=like.device).to(like.dtype) / target
    distance = (before[None, :] - after[:, None] * scale).abs() / scale.clamp(min=1)
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = torch.where(distance < 1, near, torch.where(distance < 2, far, torch.zeros_like(distance)))
    return weights / weights.sum(dim=1, keepdim=True)
