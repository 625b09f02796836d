"""A program of torch.export: for AOTInductor and whatever else reads .pt2."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.interop.export import Options
from maskrcnn_ext.interop.export.recipe import Recipe, recipe_file
from maskrcnn_ext.interop.export.tracing import example, exportable, quiet, tracing


def export(model: nn.Module, recipe: Recipe, output: Path, options: Options) -> Path:  # noqa: ARG001
    """Writes ``output``, and the recipe into the .json beside it.

    Args:
        model: a GeneralizedRCNN in evaluation mode.
        recipe: of the model.
        output: the file; its folder is made.
        options: none is heard.

    Raises:
        InputError: a part of the model cannot be exported.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    plain = _plain(model)
    given = example(plain, recipe.batched)
    sides = {
        axis: torch.export.Dim.DYNAMIC for axis in range(given.ndim) if axis != given.ndim - 3
    }  # all but the channels
    with quiet(), torch.no_grad(), tracing(plain):
        try:
            graph = exportable(plain, recipe.batched)
            program = torch.export.export(graph, (given,), dynamic_shapes=(sides,), strict=False)
            # A guard that holds for the size of the example alone shows at another.
            program.module()(given[..., :192, :320])
        except (RuntimeError, ValueError, TypeError, AssertionError) as error:  # the exporter's own errors are of these
            reason = " ".join(str(error).split())
            raise InputError(f"torch.export cannot follow a part of this model ({reason:.200})") from error
        torch.export.save(program, output)
    recipe_file(output).write_text(recipe.to_json(), encoding="utf-8")
    return output


def _plain(model: nn.Module) -> nn.Module:
    """A copy whose convolutions do not ask whether they were given anything, as Detectron2's and norms do: the answer is not known yet."""
    plain = copy.deepcopy(model)
    for parent in list(plain.modules()):
        for name, layer in parent.named_children():
            if type(layer) is Conv2d:
                parent.add_module(name, _PlainConv2d(layer))
    return plain


class _PlainConv2d(nn.Module):
    """Detectron2's layer, with a norm by statistics as part of the weights."""

    def __init__(self, layer: Conv2d) -> None:
        super().__init__()
        self.weight, self.bias, self.norm = layer.weight, layer.bias, layer.norm
        self.stride, self.padding, self.dilation, self.groups = (
            layer.stride,
            layer.padding,
            layer.dilation,
            layer.groups,
        )
        self.activation = layer.activation
        if isinstance(layer.norm, nn.BatchNorm2d | FrozenBatchNorm2d):
            norm = layer.norm
            bias = torch.zeros_like(norm.running_mean) if layer.bias is None else layer.bias
            weight, bias = fuse_conv_bn_weights(
                layer.weight, bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
            )
            self.weight, self.bias, self.norm = nn.Parameter(weight), nn.Parameter(bias), None

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
        x = x if self.norm is None else self.norm(x)
        return x if self.activation is None else self.activation(x)
