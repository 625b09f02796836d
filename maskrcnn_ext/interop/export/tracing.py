"""Traces models into programs of TorchScript and torch.export; ONNX's exporter uses the same tools."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from maskrcnn_ext.common.text import one_line
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.interop.export import Options
from maskrcnn_ext.interop.export.graph import Exportable
from maskrcnn_ext.interop.export.matterport import MatterportExportable
from maskrcnn_ext.interop.export.recipe import Recipe, recipe_file
from maskrcnn_ext.modeling.mask_heads.ground_truth import select_class
from maskrcnn_ext.modeling.matterport.rcnn import LetterboxRCNN


def export_torchscript(model: nn.Module, recipe: Recipe, output: Path, options: Options) -> Path:  # noqa: ARG001
    """Writes a TorchScript file for libtorch with torchvision's operators, and the recipe to the .json beside it.

    Args:
        model: a GeneralizedRCNN in evaluation mode; the file's tensors stay on its device.
        recipe: of the model.
        output: the .ts file; its folder is made.
        options: not used.

    Raises:
        InputError: a part of the model cannot be exported.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    with no_tracer_warnings(), torch.no_grad(), traceable_len(model):
        inputs = (example_input(model, recipe.batched),)
        traced = torch.jit.trace(make_exportable(model, recipe.batched), inputs, check_trace=False)
        with output.open("wb") as file:  # errors of PyTorch's own writer do not name their cause
            torch.jit.save(traced, file)
    recipe_file(output).write_text(recipe.to_json(), encoding="utf-8")
    return output


def export_program(model: nn.Module, recipe: Recipe, output: Path, options: Options) -> Path:  # noqa: ARG001
    """Writes a program of torch.export, for AOTInductor and other programs that read .pt2, and the recipe to the .json beside it.

    Args:
        model: a GeneralizedRCNN in evaluation mode.
        recipe: of the model.
        output: the .pt2 file; its folder is made.
        options: not used.

    Raises:
        InputError: a part of the model cannot be exported.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    plain = _with_plain_convolutions(model)
    images = example_input(plain, recipe.batched)
    # All axes but the channels may have any length.
    sides = {axis: torch.export.Dim.DYNAMIC for axis in range(images.ndim) if axis != images.ndim - 3}
    with no_tracer_warnings(), torch.no_grad(), traceable_len(plain):
        try:
            graph = make_exportable(plain, recipe.batched)
            program = torch.export.export(graph, (images,), dynamic_shapes=(sides,), strict=False)
            # Another size reveals guards that hold only for the example's.
            program.module()(images[..., :192, :320])
        except (
            RuntimeError,
            ValueError,
            TypeError,
            AssertionError,
        ) as error:  # the exporter's errors derive from these
            raise InputError(f"torch.export cannot follow a part of this model ({one_line(error):.200})") from error
        archive = io.BytesIO()  # errors of PyTorch's own writer do not name their cause
        torch.export.save(program, archive)
        output.write_bytes(archive.getbuffer())
    recipe_file(output).write_text(recipe.to_json(), encoding="utf-8")
    return output


def make_exportable(model: nn.Module, batched: bool = False) -> Exportable:
    """Returns a model as a function of tensors.

    Args:
        model: a GeneralizedRCNN in evaluation mode.
        batched: whether it takes N images of one size.

    Raises:
        InputError: a part of the model cannot be exported.

    Example::

        boxes, scores, classes, *masks = make_exportable(model)(image)
    """
    kind = MatterportExportable if isinstance(model, LetterboxRCNN) else Exportable
    return kind(model, batched)


def example_input(model: nn.Module, batched: bool = False) -> Tensor:
    """Returns an image (C, H, W), or two of them, to trace a model with.

    It is noise, so that something is detected; height and width differ, so that the tracer can distinguish them.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (2, len(model.pixel_mean), 320, 448)[not batched :]
    return (torch.rand(shape, generator=generator) * 255).to(model.device)


@contextmanager
def traceable_len(model: nn.Module) -> Iterator[None]:
    """Makes ``len(tensor)`` in the modules of a model's parts traceable; otherwise it becomes a constant."""
    from detectron2.export.torchscript_patch import patch_builtin_len

    modules = {kind.__module__ for module in model.modules() for kind in type(module).__mro__}
    modules |= {select_class.__module__, "detectron2.projects.point_rend.point_features"}
    with patch_builtin_len(
        sorted(name for name in modules if name.startswith(("maskrcnn_ext.modeling", "detectron2.projects")))
    ):
        yield


@contextmanager
def no_tracer_warnings() -> Iterator[None]:
    """Hides the tracers' warnings about every number that becomes a constant; ``verify`` measures whether one matters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _with_plain_convolutions(model: nn.Module) -> nn.Module:
    """Returns a copy whose convolutions do not test for empty inputs.

    Detectron2's convolutions and norms do, and torch.export cannot branch on a size that is unknown while it traces.
    """
    plain = copy.deepcopy(model)
    for parent in list(plain.modules()):
        for name, layer in parent.named_children():
            if type(layer) is Conv2d:
                parent.add_module(name, _PlainConv2d(layer))
    return plain


class _PlainConv2d(nn.Module):
    """Detectron2's ``Conv2d`` with a norm by fixed statistics folded into the weights."""

    def __init__(self, layer: Conv2d) -> None:
        super().__init__()
        self.weight, self.bias, self.norm = layer.weight, layer.bias, layer.norm
        self.stride, self.padding = layer.stride, layer.padding
        self.dilation, self.groups = layer.dilation, layer.groups
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
