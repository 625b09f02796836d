"""``maskrcnn_ext.optimize``: a copy of a model that predicts the same, faster."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import gc
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from detectron2.layers import ConvTranspose2d, Linear
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.roi_heads import FastRCNNConvFCHead, KRCNNConvDeconvUpsampleHead, MaskRCNNConvUpsampleHead
from torch import Tensor, nn

from maskrcnn_ext import compat
from maskrcnn_ext.common.text import or_list
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.inference.optimization.backbone import FusedFPN, fuse_block, is_fusible_fpn
from maskrcnn_ext.inference.optimization.convolution import (
    FusedConv2d,
    FusedUpsampling,
    is_fusible_conv,
    is_fusible_upsampling,
)
from maskrcnn_ext.inference.optimization.cuda_graphs import GraphedRCNN, parts_of
from maskrcnn_ext.inference.optimization.fixed_size import unsupported_reason
from maskrcnn_ext.inference.optimization.heads import (
    flatten_channels_last,
    fuse_relus,
    make_fast_rpn,
    make_optimized_pooler,
    select_class_head,
)
from maskrcnn_ext.modeling.compact_rcnn import CompactRCNN
from maskrcnn_ext.modeling.mask_heads.fcn import FCNMaskHead
from maskrcnn_ext.ops.workspace import Workspace

logger = logging.getLogger(__name__)

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# Layers whose outputs are decoded; they stay in float32.
_FLOAT32_LAYERS = ("objectness_logits", "anchor_deltas", "cls_score", "bbox_pred", "predictor", "score_lowres")
# Heads that are plain chains of layers. Others compute between their layers, which may fail in bf16.
_CHAIN_HEADS = (FastRCNNConvFCHead, MaskRCNNConvUpsampleHead, FCNMaskHead, KRCNNConvDeconvUpsampleHead)


def optimize(
    model: GeneralizedRCNN,
    device: str | None = None,
    *,
    dtype: str = "auto",
    sizes: Sequence[tuple[int, int]] = (),
) -> GeneralizedRCNN:
    """Returns a copy of a model that predicts the same, faster. It can neither be trained nor saved.

    Norms with fixed statistics are folded into the convolutions. RPN selects anchors before it decodes their boxes. RoIAlign pools all
    levels in one call. ``pred_masks`` are :class:`maskrcnn_ext.ops.rle_masks.RLEMasks`, as with :class:`maskrcnn_ext.CompactRCNN`. A
    part that cannot be optimized stays as it is, and one line of the log names it.

    On a CPU, convolutions run channels-last with bias, ReLU and residual sum fused: 3 x 3 convolutions by Winograd's algorithm, 1 x 1
    convolutions as GEMMs, both into a workspace that is reused. Nothing is compiled at run time, so images of any size run at full speed
    from the first on. The number of threads is PyTorch's (``torch.set_num_threads``); give each of several processes its share.

    On a GPU, everything from the padded batch to the masks in their boxes is one CUDA graph. It is recorded when a batch of a new shape
    arrives; the host waits for the GPU once, for the number of detections. A model that cannot be recorded (keypoints, or a mask head
    other than the fully convolutional one) runs without the graph, with the other optimizations.

    Args:
        model: the model to copy; it is not changed.
        device: device of the copy; None for that of the model.
        dtype: ``"fp32"``; ``"bf16"`` for convolutions and fully connected layers except those whose outputs are decoded; or ``"auto"``
            for bf16 if the processor or GPU has instructions for it, else fp32.
        sizes: (height, width) of inputs after resizing. Each is run once, so that memory, kernels and graphs are ready.

    Raises:
        InputError: `model` is not a GeneralizedRCNN, or `dtype` is unknown.

    Example:
        ::

            predictor = maskrcnn_ext.Predictor("output/run")
            model = maskrcnn_ext.optimize(predictor.model, dtype="bf16", sizes=[(800, 1216)])
    """
    _check_arguments(model, dtype)
    return optimize_in_place(copy.deepcopy(model), device, dtype=dtype, sizes=sizes)


def optimize_in_place(
    model: GeneralizedRCNN, device: str | None = None, *, dtype: str = "auto", sizes: Sequence[tuple[int, int]] = ()
) -> GeneralizedRCNN:
    """Optimizes a model as :func:`optimize` does, without a copy: the weights are replaced one by one, to save memory.

    Returns:
        The optimized model. `model` itself must not be used any more.
    """
    _check_arguments(model, dtype)
    model.eval().requires_grad_(False).to(device or model.device)
    if dtype == "auto":
        dtype = "bf16" if _has_bf16_instructions(model.device) else "fp32"
    layer_dtype = _DTYPES[dtype]
    heads = _flatten_lists([module for name, module in model.roi_heads.named_children() if name.endswith("_head")])
    other_heads = [head for head in heads if not isinstance(head, _CHAIN_HEADS)]

    workspace = Workspace()
    _fuse_layers(model.backbone, layer_dtype, workspace)
    if is_fusible_fpn(model.backbone):
        model.backbone = FusedFPN(model.backbone)
    rpn = make_fast_rpn(model.proposal_generator)
    if rpn is not None:
        _fuse_layers(rpn.rpn_head, layer_dtype, workspace)
        model.proposal_generator = rpn
    else:
        name = type(model.proposal_generator).__name__
        logger.info("optimize: %s stays as it is: only Detectron2's RPN and FastRPN are known", name)
    _replace_modules(model.roi_heads, lambda module, _: make_optimized_pooler(module, workspace))
    if layer_dtype != torch.float32 and other_heads:
        names = ", ".join(sorted({type(head).__name__ for head in other_heads}))
        logger.info("optimize: the heads stay in float32: %s may not work in bf16", names)
        model.backbone.register_forward_hook(_cast_to_float32)
    for head in heads:
        flatten_channels_last(head, getattr(getattr(model.roi_heads, "box_pooler", None), "output_size", None))
    _fuse_layers(model.roi_heads, torch.float32 if other_heads else layer_dtype, workspace)
    _replace_modules(model.roi_heads, lambda module, _: select_class_head(module))
    fuse_relus(model)
    if type(model) in (GeneralizedRCNN, CompactRCNN):
        model = _compact(model)
    _release_freed_memory()
    with torch.inference_mode():
        for height, width in sizes:
            model.inference([{"image": torch.zeros(len(model.pixel_mean), height, width, device=model.device)}])
    return model


class CastInput(nn.Module):
    """A layer that casts its input to the dtype of its weights."""

    def __init__(self, layer: nn.Module, dtype: torch.dtype) -> None:
        """Casts the weights of `layer` to `dtype`, in place."""
        super().__init__()
        self.layer, self.dtype = layer.to(dtype), dtype

    def forward(self, x: Tensor) -> Tensor:
        """Returns the output of the layer."""
        out: Tensor = self.layer(x.to(self.dtype))
        return out


def _check_arguments(model: GeneralizedRCNN, dtype: str) -> None:
    if not isinstance(model, GeneralizedRCNN):
        raise InputError(f"optimize: {type(model).__name__} is not a GeneralizedRCNN")
    if dtype not in ("auto", *_DTYPES):
        raise InputError(f"optimize: dtype={dtype}: expected {or_list(['auto', *_DTYPES])}")


def _release_freed_memory() -> None:
    """Returns the memory of the original weights to the operating system; the C library would keep it."""
    gc.collect()
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # a C library without malloc_trim
            ctypes.CDLL(None).malloc_trim(0)


def _compact(model: GeneralizedRCNN) -> CompactRCNN:
    """Returns the model as a GraphedRCNN on a GPU if its parts allow that, else as a CompactRCNN."""
    reason = unsupported_reason(model)
    if model.device.type == "cuda" and reason is not None:
        logger.info("optimize: no CUDA graphs, as %s", reason)
    graphs = model.device.type == "cuda" and reason is None
    return (GraphedRCNN if graphs else CompactRCNN)(**parts_of(model)).to(model.device).eval()


def _cast_to_float32(_: nn.Module, __: Any, features: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.float() for name, value in features.items()}


def _has_bf16_instructions(device: torch.device) -> bool:
    """Whether a device has instructions for bf16. A CPU without them computes bf16 slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return not {"AMX", "AVX-512 BF16"}.isdisjoint(compat.cpu_instructions())


def _fuse_layers(module: nn.Module, dtype: torch.dtype, workspace: Workspace) -> None:
    """Replaces the layers and blocks below a module by their fused forms."""

    def make_conv(conv: nn.Module, name: str = "", *, relu: bool = False) -> FusedConv2d:
        return FusedConv2d(conv, dtype=dtype_of(name), workspace=workspace, relu=relu)

    def dtype_of(name: str) -> torch.dtype:
        return torch.float32 if name in _FLOAT32_LAYERS else dtype

    def replacement(child: nn.Module, name: str) -> nn.Module | None:
        if is_fusible_conv(child):
            return make_conv(child, name)
        if is_fusible_upsampling(child) and dtype == torch.float32:
            return FusedUpsampling(child, workspace=workspace)
        if isinstance(child, Linear | ConvTranspose2d):
            return CastInput(child, dtype_of(name))
        return fuse_block(child, name, make_conv)

    _replace_modules(module, replacement)


def _replace_modules(module: nn.Module, replacement: Callable[[nn.Module, str], nn.Module | None]) -> None:
    """Replaces each module below `module` by what `replacement` returns for it and its name; None keeps it and searches below it."""
    for name, child in list(module.named_children()):
        new = replacement(child, name)
        if new is None:
            _replace_modules(child, replacement)
            continue
        compat.replace_child(module, name, new)


def _flatten_lists(modules: Sequence[nn.Module]) -> list[nn.Module]:
    """Returns the modules, with each ``ModuleList`` (the stages of a cascade) replaced by its entries."""
    return [part for module in modules for part in (module if isinstance(module, nn.ModuleList) else [module])]
