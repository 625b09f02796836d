"""Makes training faster or smaller without changing the model: mixed precision, compilation, Winograd, activation checkpointing."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from typing import Any

import torch
from torch import nn

from maskrcnn_ext.compat import checkpoint_wrapper, is_batch_norm
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.modeling.depthwise_conv import use_fast_depthwise
from maskrcnn_ext.modeling.fast_group_norm import use_fast_group_norm
from maskrcnn_ext.modeling.winograd_conv import use_winograd

logger = logging.getLogger(__name__)

# Parts of Detectron2's GeneralizedRCNN, by the names that ``train.activation_checkpointing`` takes.
PARTS = {
    "backbone": "backbone",
    "box_head": "roi_heads.box_head",
    "mask_head": "roi_heads.mask_head",
    "keypoint_head": "roi_heads.keypoint_head",
}


def amp_dtype(name: str | None, device: str) -> torch.dtype:
    """Returns the dtype of mixed precision.

    Args:
        name: "bf16" or "fp16"; None for float16 on CUDA, as in Detectron2, and bfloat16 on a CPU.
        device: such as "cuda:0" or "cpu".

    Example:
        >>> amp_dtype(None, "cpu"), amp_dtype("fp16", "cpu")
        (torch.bfloat16, torch.float16)
    """
    if name is None:
        return torch.float16 if device.startswith("cuda") else torch.bfloat16
    return {"bf16": torch.bfloat16, "fp16": torch.float16}[name]


def compile_backbone(model: nn.Module) -> None:
    """Compiles the backbone in place and keeps the names of its parameters. The other parts have a different shape for every image."""
    model.backbone.compile(dynamic=True)


def enable_winograd(model: nn.Module, *, compiled: bool) -> int:
    """Switches suitable convolutions to Winograd's algorithm, for float32 on a CPU.

    Args:
        model: changed in place.
        compiled: whether the model is compiled as well, which is an error.

    Returns:
        The number of these convolutions.

    Raises:
        InputError: `compiled` is set, or the library of this package was not built.
    """
    if compiled:
        raise InputError("train.winograd and train.compile exclude each other: set one of them to false")
    try:
        return use_winograd(model)
    except OSError as error:
        raise InputError(f"train.winograd: {error}; install g++, then this package again") from None


def enable_channels_last_kernels(model: nn.Module) -> None:
    """Makes depthwise convolutions and GroupNorm use this package's passes for channels-last maps on a CPU, if their libraries were built.

    `doctor` says whether they were.
    """
    for use, layers in ((use_fast_depthwise, "depthwise convolutions"), (use_fast_group_norm, "GroupNorm layers")):
        with suppress(OSError):
            count = use(model)
            if count:
                logger.info("%d %s use a faster backward pass", count, layers)


def checkpoint_activations(model: nn.Module, parts: Sequence[str]) -> None:
    """Enables activation checkpointing: activations are computed again in the backward pass, which saves memory and costs time.

    The backbone is checkpointed block by block, a head as a whole. The names in the state dict do not change.

    Args:
        model: a GeneralizedRCNN of Detectron2, changed in place.
        parts: names in :data:`PARTS`.

    Raises:
        InputError: the model has no such part.

    Example::

        train.activation_checkpointing=[backbone,mask_head]
    """
    for name in parts:
        owner_path, _, child = PARTS.get(name, "").rpartition(".")
        if not child or not _has_module(model, PARTS[name]):
            known = ", ".join(part for part, path in PARTS.items() if _has_module(model, path))
            raise InputError(f"train.activation_checkpointing: the model has no {name!r} (it has {known})")
        owner = model.get_submodule(owner_path)
        part = getattr(owner, child)
        is_single = name != "backbone" and not isinstance(part, nn.ModuleList)  # Cascade R-CNN has a list of box heads
        for parent, key, block in [(owner, child, part)] if is_single else list(_find_blocks(part)):
            setattr(parent, key, checkpoint_wrapper(block, context_fn=partial(_checkpoint_contexts, block)))


def _has_module(model: nn.Module, path: str) -> bool:
    part: Any = model
    for name in path.split("."):
        part = getattr(part, name, None)
    return isinstance(part, nn.Module)


def _find_blocks(module: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """Yields parent, name and module of the members of the outermost sequences, such as the blocks of ResNet stages or of a ViT."""
    for name, child in module.named_children():
        if isinstance(module, nn.Sequential | nn.ModuleList):
            yield module, name, child
        else:
            yield from _find_blocks(child)


def _checkpoint_contexts(module: nn.Module) -> tuple[Any, Any]:
    """Returns the contexts of the forward pass and of its repetition, which must not update BatchNorm's running statistics again."""
    return nullcontext(), _running_statistics_kept(module)


@contextmanager
def _running_statistics_kept(module: nn.Module) -> Iterator[None]:
    norms = [m for m in module.modules() if is_batch_norm(m) and m.track_running_stats]
    kept = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0  # weight of the new batch in the running statistics
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, kept, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(count)
