"""Winograd's 3 x 3 convolution for training: all three passes with a quarter of the multiplications."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from maskrcnn_ext.ops.winograd import transform_weight, winograd_conv2d, winograd_weight_gradient
from maskrcnn_ext.ops.workspace import Workspace


def winograd_convolution(x: Tensor, weight: Tensor, bias: Tensor | None, workspace: Workspace) -> Tensor:
    """Convolves with 3 x 3 kernels, stride 1 and a padding of 1; differentiable once.

    Args:
        x: (N, I, H, W) float32, on the CPU.
        weight: (O, I, 3, 3) float32, with numbers of channels that are multiples of 16.
        bias: (O,) float32, or None.
        workspace: memory to use, also for the result and the gradient of `x`.

    Returns:
        (N, O, H, W), channels-last.

    Raises:
        OSError: the compiled library is not there.
        ValueError: tensors of other shapes or types.
    """
    convolved: Tensor = _Winograd.apply(x, weight, bias, workspace)
    return convolved


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, workspace: Workspace) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(x, weight)
        ctx.workspace = workspace
        return winograd_conv2d(
            x, transform_weight(weight), weight.new_zeros(len(weight)) if bias is None else bias, workspace
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias, _ = ctx.needs_input_grad
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_x = of_weight = None
        if needs_x:  # the convolution with the kernels turned by half a circle, from outputs to inputs
            turned = transform_weight(weight.flip(2, 3).transpose(0, 1))
            of_x = winograd_conv2d(gradient, turned, weight.new_zeros(weight.shape[1]), ctx.workspace)
        if needs_weight:
            of_weight = winograd_weight_gradient(x, gradient, ctx.workspace)
        return of_x, of_weight, gradient.sum((0, 2, 3)) if needs_bias else None, None
