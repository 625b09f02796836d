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
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.inference.optimization.blocks import fuse_block
from maskrcnn_ext.inference.optimization.convolution import FusedConv2d, FusedUpsampling, fuses, is_upsampling
from maskrcnn_ext.inference.optimization.fixed_size import unsupported_reason
from maskrcnn_ext.inference.optimization.graphed_rcnn import GraphedRCNN, parts_of
from maskrcnn_ext.inference.optimization.heads import flatten_as_it_lies, fuse_sequences, own_class
from maskrcnn_ext.inference.optimization.pooling import fast_pooler
from maskrcnn_ext.inference.optimization.proposals import fast_rpn
from maskrcnn_ext.inference.optimization.pyramid import FusedFPN, fuses_pyramid
from maskrcnn_ext.modeling.compact_rcnn import CompactRCNN
from maskrcnn_ext.modeling.mask_heads.fcn import FCNMaskHead
from maskrcnn_ext.ops.workspace import Workspace

logger = logging.getLogger(__name__)

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# The last layers, whose outputs are decoded, stay in float32.
_LAST = ("objectness_logits", "anchor_deltas", "cls_score", "bbox_pred", "predictor", "score_lowres")
# Heads that are chains of layers. What others compute between their layers is not known to stand another type.
_CHAINS = (FastRCNNConvFCHead, MaskRCNNConvUpsampleHead, FCNMaskHead, KRCNNConvDeconvUpsampleHead)


def optimize(
    model: GeneralizedRCNN,
    device: str | None = None,
    *,
    dtype: str = "auto",
    sizes: Sequence[tuple[int, int]] = (),
) -> GeneralizedRCNN:
    """Returns a copy of a model for prediction.

    Norms with fixed statistics are folded into the convolutions. On a CPU, convolutions work channels-last, with bias, ReLU and residual
    sum inside them: those of 3 x 3 pixels are Winograd's, those of 1 x 1 products of matrices, into memory that is used again. RPN picks
    its anchors before it decodes boxes; RoIAlign takes all levels in one call; ``pred_masks`` are
    :class:`maskrcnn_ext.ops.rle_masks.RLEMasks`, as of :class:`maskrcnn_ext.CompactRCNN`. What a part cannot do is logged in one line, and
    the part stays as it is.

    On a CPU nothing is compiled, so that images of any size run at full speed from the first on, and processes share nothing. The threads
    are PyTorch's (``torch.set_num_threads``): for several processes on one machine, give each its share.

    On a GPU all from the padded batch to the masks in their boxes is one CUDA graph, recorded when a batch of a new shape comes, and the
    host waits once, for the number of detections. Of a model that cannot be one (keypoints, other mask heads than the fully convolutional
    one) the parts above are launched one by one.

    Args:
        model: left as it is.
        device: to put the copy on; None for the model's.
        dtype: "fp32"; "bf16" for convolutions and fully connected layers, of which the last ones, whose outputs are decoded, stay in
            float32; "auto" for bf16 where the processor or GPU computes with it, else fp32.
        sizes: (height, width) of inputs, after resizing, to run once, so that memory, kernels and graphs are ready for them.

    Returns:
        A model that can predict and not train, and whose weights cannot be saved.

    Raises:
        InputError: not a GeneralizedRCNN, or an unknown `dtype`.
    """
    _check(model, dtype)
    return take_over(copy.deepcopy(model), device, dtype=dtype, sizes=sizes)


def take_over(
    model: GeneralizedRCNN, device: str | None = None, *, dtype: str = "auto", sizes: Sequence[tuple[int, int]] = ()
) -> GeneralizedRCNN:
    """As :func:`optimize`, of a model that nobody needs any more: its weights are given up one by one."""
    _check(model, dtype)
    model.eval().requires_grad_(False).to(device or model.device)
    kind = _DTYPES[dtype] if dtype != "auto" else (torch.bfloat16 if _computes_bf16(model.device) else torch.float32)
    heads = [module for name, module in model.roi_heads.named_children() if name.endswith("_head")]
    others = [head for head in _flat(heads) if not isinstance(head, _CHAINS)]

    workspace = Workspace()
    _fuse(model.backbone, kind, workspace)
    if fuses_pyramid(model.backbone):
        model.backbone = FusedFPN(model.backbone)
    rpn = fast_rpn(model.proposal_generator)
    if rpn is not None:
        _fuse(rpn.rpn_head, kind, workspace)
        model.proposal_generator = rpn
    else:
        name = type(model.proposal_generator).__name__
        logger.info("optimize: %s stays as it is: only Detectron2's RPN and FastRPN are known", name)
    _replace(model.roi_heads, lambda module, _: fast_pooler(module, workspace))
    if kind != torch.float32 and others:
        names = ", ".join(sorted({type(head).__name__ for head in others}))
        logger.info("optimize: the heads stay in float32, as %s is not known to stand bf16", names)
        model.backbone.register_forward_hook(_to_float32)
    for head in _flat(heads):
        flatten_as_it_lies(head, getattr(getattr(model.roi_heads, "box_pooler", None), "output_size", None))
    _fuse(model.roi_heads, torch.float32 if others else kind, workspace)
    _replace(model.roi_heads, lambda module, _: own_class(module))
    fuse_sequences(model)
    if type(model) in (GeneralizedRCNN, CompactRCNN):
        model = _compact(model)
    _give_back()
    with torch.inference_mode():
        for height, width in sizes:
            model.inference([{"image": torch.zeros(len(model.pixel_mean), height, width, device=model.device)}])
    return model


def _check(model: GeneralizedRCNN, dtype: str) -> None:
    if not isinstance(model, GeneralizedRCNN):
        raise InputError(f"optimize: {type(model).__name__} is no GeneralizedRCNN")
    if dtype not in ("auto", *_DTYPES):
        raise InputError(f"optimize: dtype={dtype}: expected auto, {', '.join(_DTYPES)}")


def _give_back() -> None:
    """Returns to the system the memory of the weights as they were, which the C library would keep."""
    gc.collect()
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # a C library that does not keep it
            ctypes.CDLL(None).malloc_trim(0)


def _compact(model: GeneralizedRCNN) -> CompactRCNN:
    reason = unsupported_reason(model)
    if model.device.type == "cuda" and reason is not None:
        logger.info("optimize: no CUDA graphs, as %s", reason)
    graphs = model.device.type == "cuda" and reason is None
    return (GraphedRCNN if graphs else CompactRCNN)(**parts_of(model)).to(model.device).eval()


class InputOfType(nn.Module):
    """A layer that takes its input in the type of its weights."""

    def __init__(self, layer: nn.Module, dtype: torch.dtype) -> None:
        """Takes over a layer."""
        super().__init__()
        self.layer, self.dtype = layer.to(dtype), dtype

    def forward(self, x: Tensor) -> Tensor:
        """As the layer's."""
        out: Tensor = self.layer(x.to(self.dtype))
        return out


def _to_float32(_: nn.Module, __: Any, features: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.float() for name, value in features.items()}


def _computes_bf16(device: torch.device) -> bool:
    """Whether a device has instructions for bf16; where a CPU has none, it is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return not {"AMX", "AVX-512 BF16"}.isdisjoint(compat.cpu_instructions())


def _fuse(module: nn.Module, dtype: torch.dtype, workspace: Workspace) -> None:
    def fused(conv: nn.Module, name: str = "", *, relu: bool = False) -> FusedConv2d:
        own = torch.float32 if name in _LAST else dtype
        return FusedConv2d(conv, dtype=own, workspace=workspace, relu=relu)

    def replacement(child: nn.Module, name: str) -> nn.Module | None:
        if fuses(child):
            return fused(child, name)
        if is_upsampling(child) and dtype == torch.float32:
            return FusedUpsampling(child, workspace=workspace)
        if isinstance(child, Linear | ConvTranspose2d):
            return InputOfType(child, torch.float32 if name in _LAST else dtype)
        return fuse_block(child, name, fused)

    _replace(module, replacement)


def _replace(module: nn.Module, replacement: Callable[[nn.Module, str], nn.Module | None]) -> None:
    """Replaces modules below a module by what `replacement` makes of them and of their names, where that is not None."""
    for name, child in list(module.named_children()):
        made = replacement(child, name)
        if made is None:
            _replace(child, replacement)
            continue
        compat.replace_child(module, name, made)


def _flat(modules: Sequence[nn.Module]) -> list[nn.Module]:
    """Modules, with those of lists (the stages of a cascade) in the place of the list."""
    return [part for module in modules for part in (module if isinstance(module, nn.ModuleList) else [module])]
