"""What all tracers need: the model as a function of tensors, an example, and conditions under which they follow it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from maskrcnn_ext.interop.export.graph import Exportable
from maskrcnn_ext.interop.export.matterport import MatterportExportable
from maskrcnn_ext.modeling.matterport.rcnn import LetterboxRCNN


def exportable(model: nn.Module, batched: bool = False) -> Exportable:
    """The model as a function of tensors; see :class:`Exportable`."""
    kind = MatterportExportable if isinstance(model, LetterboxRCNN) else Exportable
    return kind(model, batched)


@contextmanager
def tracing(model: nn.Module) -> Iterator[None]:
    """Lets tracers see how long the tensors are that the model's parts ask ``len`` of, which otherwise becomes a constant."""
    from detectron2.export.torchscript_patch import patch_builtin_len

    modules = {kind.__module__ for module in model.modules() for kind in type(module).__mro__}
    modules |= {"maskrcnn_ext.modeling.mask_heads.targets", "detectron2.projects.point_rend.point_features"}
    with patch_builtin_len(
        sorted(name for name in modules if name.startswith(("maskrcnn_ext.modeling", "detectron2.projects")))
    ):
        yield


@contextmanager
def quiet() -> Iterator[None]:
    """Leaves out what tracers say of every number that they make a constant of: whether it matters, ``verify`` measures."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def example(model: nn.Module, batched: bool = False) -> Tensor:
    """An image, or two of them, to trace a model with: noise, so that something is found; its size tells height and width apart."""
    generator = torch.Generator().manual_seed(0)
    shape = (2, len(model.pixel_mean), 320, 448)[not batched :]
    return (torch.rand(shape, generator=generator) * 255).to(model.device)
