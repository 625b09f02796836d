"""What makes the same model faster or smaller in training: memory format, compilation, activation checkpointing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn

from maskrcnn_ext.compat import checkpoint_wrapper, is_batch_norm
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.modeling.winograd_conv import use_winograd

# Where a model of Detectron2's GeneralizedRCNN has its parts.
PARTS = {
    "backbone": "backbone",
    "box_head": "roi_heads.box_head",
    "mask_head": "roi_heads.mask_head",
    "keypoint_head": "roi_heads.keypoint_head",
}


def amp_dtype(name: str | None, device: str) -> torch.dtype:
    """Returns what mixed precision computes in: what `name` says, else float16 on CUDA, as Detectron2, and bfloat16 on a CPU."""
    if name is None:
        return torch.float16 if device.startswith("cuda") else torch.bfloat16
    return {"bf16": torch.bfloat16, "fp16": torch.float16}[name]


def compile_parts(model: nn.Module) -> None:
    """Compiles the backbone in place; the names of the parameters stay. What follows it depends on the number of boxes of each image."""
    model.backbone.compile(dynamic=True)


def winograd_convolutions(model: nn.Module, *, compiled: bool) -> int:
    """Lets the convolutions that Winograd's algorithm suits use it, in float32 on a CPU; returns how many there are.

    Raises:
        InputError: the model is to be compiled, or the library was not.
    """
    if compiled:
        raise InputError(
            "train.winograd: with train.compile, the compiler makes the convolutions: set one of both to false"
        )
    try:
        return use_winograd(model)
    except OSError as error:
        raise InputError(f"train.winograd: {error}; install g++, then this package again") from None


def checkpoint_activations(model: nn.Module, parts: Sequence[str]) -> None:
    """Makes parts forget what their layers computed, and compute it again in the backward pass: less memory, more time.

    The backbone forgets block by block, a head as a whole. The names in the state dict stay.

    Args:
        model: of Detectron2's GeneralizedRCNN.
        parts: of :data:`PARTS`.

    Raises:
        InputError: a part that there is not.
    """
    for name in parts:
        owner_path, _, child = PARTS.get(name, "").rpartition(".")
        if not child or not _has(model, PARTS[name]):
            known = ", ".join(part for part, path in PARTS.items() if _has(model, path))
            raise InputError(f"train.activation_checkpointing: the model has no {name!r} (it has {known})")
        owner = model.get_submodule(owner_path)
        part = getattr(owner, child)
        is_one = name != "backbone" and not isinstance(part, nn.ModuleList)  # Cascade R-CNN has a list of box heads
        for holder, key, block in [(owner, child, part)] if is_one else list(_blocks(part)):
            setattr(holder, key, checkpoint_wrapper(block, context_fn=partial(_contexts, block)))


def _has(model: nn.Module, path: str) -> bool:
    part: Any = model
    for name in path.split("."):
        part = getattr(part, name, None)
    return isinstance(part, nn.Module)


def _blocks(module: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """The members of the outermost sequences, such as the blocks of a ResNet's stages or of a ViT: parent, name, block."""
    for name, child in module.named_children():
        if isinstance(module, nn.Sequential | nn.ModuleList):
            yield module, name, child
        else:
            yield from _blocks(child)


def _contexts(module: nn.Module) -> tuple[Any, Any]:
    """For the forward pass and for its repetition, which must not count in the running statistics of BatchNorm a second time."""
    return nullcontext(), _statistics_kept(module)


@contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    norms = [m for m in module.modules() if is_batch_norm(m) and m.track_running_stats]
    kept = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0  # of the new batch in the running statistics
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, kept, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(count)
