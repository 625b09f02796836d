"""``maskrcnn_ext.optimize``: a copy of a model that predicts the same, faster."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import gc
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.backbone import ResNet
from detectron2.modeling.roi_heads import Res5ROIHeads
from torch import Tensor, nn

from maskrcnn_ext import compat
from maskrcnn_ext.common.progress import Progress
from maskrcnn_ext.common.text import first_line, or_list, short_list
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.inference.optimization.backbone import AutocastBackbone, FusedFPN, fuse_block, is_fusible_fpn
from maskrcnn_ext.inference.optimization.calibration import (
    Calibration,
    CalibrationFile,
    ObservedLayers,
    Observer,
    weight_names,
)
from maskrcnn_ext.inference.optimization.convolution import FusedConv2d, is_fusible_conv
from maskrcnn_ext.inference.optimization.cuda_graphs import GraphedRCNN, parts_of
from maskrcnn_ext.inference.optimization.fixed_size import unsupported_reason
from maskrcnn_ext.inference.optimization.heads import (
    ChannelsLastFlatten,
    FusedRPNHead,
    OptimizedPooler,
    flatten_channels_last,
    fuse_relus,
    is_fusible_rpn_head,
    make_fast_rpn,
    make_optimized_pooler,
    select_class_head,
)
from maskrcnn_ext.inference.optimization.int8 import Int8Layers, keep_quantized
from maskrcnn_ext.inference.optimization.known import ROI_HEADS, needs_autocast, only_calls_layers, unknown_in_bf16
from maskrcnn_ext.inference.optimization.layers import CastInput, FusedLayers
from maskrcnn_ext.inference.optimization.timm_nets import TracedTimmBackbone, trace_timm
from maskrcnn_ext.modeling.compact_rcnn import CompactRCNN
from maskrcnn_ext.modeling.depthwise_conv import DepthwiseConv2d
from maskrcnn_ext.modeling.fast_group_norm import FastGroupNorm
from maskrcnn_ext.modeling.winograd_conv import WinogradConv2d
from maskrcnn_ext.ops.quantized import is_supported
from maskrcnn_ext.ops.workspace import Workspace

logger = logging.getLogger(__name__)

_MakeLayers = Callable[[torch.dtype, Workspace], FusedLayers]
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# Classes that a training on a CPU gives to layers.
_TRAINING_CLASSES = (DepthwiseConv2d, FastGroupNorm, WinogradConv2d)
# Each optimized model has one of them.
_OPTIMIZED_CLASSES = (CastInput, ChannelsLastFlatten, FusedConv2d, OptimizedPooler)


def optimize(
    model: GeneralizedRCNN,
    device: str | None = None,
    *,
    dtype: str = "auto",
    sizes: Sequence[tuple[int, int]] = (),
    calibrate: Iterable[Any] | None = None,
) -> GeneralizedRCNN:
    """Returns a copy of a model that predicts the same, faster.

    It can be copied and pickled, but not trained, and has no state dict: its weights are in the layout of this processor's kernels.
    Optimize the model again after its weights have changed.

    Norms with fixed statistics are folded into the convolutions. RPN selects anchors before it decodes their boxes. RoIAlign pools all
    levels in one call. ``pred_masks`` are :class:`maskrcnn_ext.ops.rle_masks.RLEMasks`, as with :class:`maskrcnn_ext.CompactRCNN`.

    Only modules whose exact class is known are replaced, in modules that are known to call them. All others (subclasses, your own heads,
    modules with forward hooks) stay as they are. A part with one of them runs in float32, and one line of the log names it. A network of
    timm is replaced by the graph of its operators if all of them are known.

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
            for bf16 if the processor or GPU has instructions for it, else fp32. ``"int8"`` is for CPUs with AVX-512 VNNI or AMX: 8-bit
            integers for all layers but the first convolution, FPN's sums and the layers whose outputs are decoded, after a calibration.
        sizes: (height, width) of inputs after resizing. Each is run once, so that memory, kernels and graphs are ready.
        calibrate: for int8, the images on which the ranges of the maps are measured, about 32 like those to predict: tensors (C, H, W) as
            the model takes them, or dicts with one as ``image``.

    Raises:
        InputError: `model` is not a GeneralizedRCNN or optimized already, `dtype` is unknown, or int8 lacks images or instructions.

    Example:
        ::

            predictor = maskrcnn_ext.Predictor("output/run")
            model = maskrcnn_ext.optimize(predictor.model, dtype="bf16", sizes=[(800, 1216)])
    """
    _check_arguments(model, dtype)
    return optimize_in_place(copy.deepcopy(model), device, dtype=dtype, sizes=sizes, calibrate=calibrate)


def optimize_in_place(
    model: GeneralizedRCNN,
    device: str | None = None,
    *,
    dtype: str = "auto",
    sizes: Sequence[tuple[int, int]] = (),
    calibrate: Iterable[Any] | None = None,
    scales: CalibrationFile | None = None,
) -> GeneralizedRCNN:
    """Optimizes a model as :func:`optimize` does, without a copy: the weights are replaced one by one, to save memory.

    Args:
        model: the model; it must not be used any more.
        device: see :func:`optimize`.
        dtype: see :func:`optimize`.
        sizes: see :func:`optimize`.
        calibrate: see :func:`optimize`.
        scales: a file with the result of an earlier calibration. If it has none for these weights and images, it is written.
    """
    _check_arguments(model, dtype)
    _restore_classes(model)
    model.eval().requires_grad_(False).to(device or model.device)
    for value in (*model.parameters(), *model.buffers()):
        if value.is_floating_point() and value.dtype != torch.float32:
            value.data = value.data.float()
    if dtype == "auto":
        dtype = "bf16" if _has_bf16_instructions(model.device) else "fp32"
    elif dtype == "bf16" and not _has_bf16_instructions(model.device):
        logger.warning(
            "optimize: this %s has no instructions for bf16, so that fp32 is faster", model.device.type.upper()
        )
    make_layers: _MakeLayers = FusedLayers
    unseen: list[str] = []
    if dtype == "int8":
        known = _find_calibration(model, calibrate, scales)
        names = weight_names(model)
        dtype = "bf16" if _has_bf16_instructions(model.device) else "fp32"

        def make_layers(dtype: torch.dtype, workspace: Workspace) -> FusedLayers:
            return Int8Layers(dtype, workspace, names, known, unseen)

    elif calibrate is not None:
        raise InputError(f"optimize: calibrate is for dtype=int8, not {dtype}")
    model = _replace_parts(model, _DTYPES[dtype], make_layers)
    keep_quantized(model)
    if unseen:
        logger.warning(
            "optimize: in %s, not int8: %s, which no object of the calibration images reaches: calibrate with images of objects",
            dtype,
            short_list(sorted({name.rpartition(".")[0] for name in unseen})),
        )
    _refuse_other_use(model)
    _release_freed_memory()
    with torch.inference_mode():
        for height, width in sizes:
            model.inference([{"image": torch.zeros(len(model.pixel_mean), height, width, device=model.device)}])
    return model


def _restore_classes(model: nn.Module) -> None:
    """Undoes what a training on a CPU changes in layers, which are then known again."""
    for module in model.modules():
        if isinstance(module, _TRAINING_CLASSES):
            compat.restore_class(module)


def _replace_parts(model: GeneralizedRCNN, dtype: torch.dtype, make_layers: _MakeLayers) -> GeneralizedRCNN:
    """Returns a model made of the optimized parts of another, which must not be used any more."""
    heads = model.roi_heads
    rpn = None if compat.has_forward_hooks(model.proposal_generator) else make_fast_rpn(model.proposal_generator)
    if rpn is None:
        name = type(model.proposal_generator).__name__
        logger.warning("optimize: %s stays as it is: only Detectron2's RPN and FastRPN are known", name)
    else:
        model.proposal_generator = rpn
    _replace_modules(model, lambda module, *_: trace_timm(module))
    dtypes = {
        name: _part_dtype(name, part, dtype)
        for name, part in (
            ("backbone", model.backbone),
            ("RPN", model.proposal_generator),
            ("part after the RPN", heads),
        )
    }

    workspace = Workspace()
    _fuse_layers(model.backbone, make_layers(dtypes["backbone"], workspace))
    if is_fusible_fpn(model.backbone) and not compat.has_forward_hooks(model.backbone):
        model.backbone = FusedFPN(model.backbone)
    if dtypes["backbone"] != torch.float32 and needs_autocast(model.backbone):
        model.backbone = AutocastBackbone(model.backbone)
    if dtypes["backbone"] != torch.float32 and torch.float32 in dtypes.values():
        model.backbone.register_forward_hook(_cast_to_float32)
    if rpn is not None:
        _fuse_layers(rpn.rpn_head, make_layers(dtypes["RPN"], workspace))
        if is_fusible_rpn_head(rpn.rpn_head):
            rpn.rpn_head = FusedRPNHead(rpn.rpn_head)
    _replace_modules(heads, lambda module, *_: make_optimized_pooler(module, workspace))
    if type(heads) in ROI_HEADS:
        pooled_size = getattr(getattr(heads, "box_pooler", None), "output_size", None)
        for head in _flatten_lists([getattr(heads, "box_head", nn.ModuleList())]):
            flatten_channels_last(head, pooled_size)
    _fuse_layers(heads, make_layers(dtypes["part after the RPN"], workspace))
    if type(heads) in ROI_HEADS:
        _replace_modules(heads, lambda module, name, _: select_class_head(module) if name == "mask_head" else None)
    fuse_relus(model)
    return _compact(model) if type(model) in (GeneralizedRCNN, CompactRCNN) else model


def _find_calibration(
    model: GeneralizedRCNN, images: Iterable[Any] | None, file: CalibrationFile | None
) -> Calibration:
    """Returns the calibration of a model, from the file or else measured on images."""
    if model.device.type != "cpu":
        raise InputError(f"optimize: int8 is for the CPU, not {model.device}: set the device to cpu, or use bf16")
    if not is_supported():
        raise InputError("optimize: int8 needs a CPU with AVX-512 VNNI or AMX, and oneDNN's kernels: use fp32 or bf16")
    known = None if file is None else file.read()
    if known is not None:
        logger.info("optimize: scales of int8 from %s", file.path if file else "")
        return known
    observer, count = Observer(), 0
    observed = copy.deepcopy(model)
    names = weight_names(observed)
    observed = _replace_parts(observed, torch.float32, lambda _, workspace: ObservedLayers(workspace, names, observer))
    with torch.inference_mode(), Progress(None, description="calibrating") as progress:
        for image in () if images is None else images:
            observed.inference([_model_input(image, len(model.pixel_mean))], do_postprocess=False)
            count += 1
            progress.step()
    if not count:
        raise InputError(
            "optimize: int8 needs images to calibrate: calibrate=images, or --calibrate DATA; about 32 like those to predict"
        )
    found = observer.result()
    logger.info("optimize: calibrated int8 on %d images", count)
    if file is not None:
        try:
            file.write(found)
        except OSError as error:
            logger.warning("optimize: the next start calibrates again: %s", first_line(error))
    return found


def _model_input(image: Any, channels: int) -> dict[str, Any]:
    """Returns an image as the model takes it: a dict with ``image``, or the tensor (C, H, W) in it."""
    given = image.get("image") if isinstance(image, dict) else image
    if not isinstance(given, Tensor) or given.dim() != 3 or len(given) != channels or not given.numel():
        kind = f"tensor {tuple(given.shape)}" if isinstance(given, Tensor) else type(given).__name__
        raise InputError(
            f"optimize: calibrate has a {kind}: expected tensors ({channels}, H, W), or dicts with one as `image`"
        )
    return image if isinstance(image, dict) else {"image": given}


def _check_arguments(model: GeneralizedRCNN, dtype: str) -> None:
    if not isinstance(model, GeneralizedRCNN):
        raise InputError(f"optimize: {type(model).__name__} is not a GeneralizedRCNN")
    if dtype not in (*_DTYPES, "auto", "int8"):
        raise InputError(f"optimize: dtype={dtype}: expected {or_list(['auto', *_DTYPES, 'int8'])}")
    if any(isinstance(module, _OPTIMIZED_CLASSES) for module in model.modules()):
        raise InputError("optimize: this model is optimized already: take the model that it was made of")


def _refuse_other_use(model: nn.Module) -> None:
    """Makes training, saving and loading errors, which would otherwise start from a few weights in a layout of their own."""
    model.register_forward_pre_hook(_refuse_training)
    model.register_state_dict_pre_hook(_refuse_state)
    compat.register_load_pre_hook(model, _refuse_state)


def _refuse_training(model: nn.Module, _: Any) -> None:
    if model.training:
        raise InputError("an optimized model cannot be trained: call eval(), or train the model that it was made of")


def _refuse_state(*_: Any) -> None:
    raise InputError("an optimized model cannot be saved, loaded or exported: use the model that it was made of")


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
        logger.warning("optimize: no CUDA graphs, as %s", reason)
    graphs = model.device.type == "cuda" and reason is None
    return (GraphedRCNN if graphs else CompactRCNN)(**parts_of(model)).to(model.device).eval()


def _part_dtype(name: str, part: nn.Module, dtype: torch.dtype) -> torch.dtype:
    """Returns the dtype of a part's layers: float32 if any of its modules may not work in bf16."""
    unknown = [] if dtype == torch.float32 else sorted(set(unknown_in_bf16(part)))
    if unknown:
        logger.warning("optimize: the %s stays in float32: %s may not work in bf16", name, short_list(unknown))
        return torch.float32
    return dtype


def _cast_to_float32(_: nn.Module, __: Any, features: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.float() for name, value in features.items()}


def _has_bf16_instructions(device: torch.device) -> bool:
    """Whether a device has instructions for bf16. A CPU without them computes bf16 slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return not {"AMX", "AVX-512 BF16"}.isdisjoint(compat.cpu_instructions())


def _fuse_layers(module: nn.Module, layers: FusedLayers) -> None:
    """Replaces the layers and blocks below a module by their fused forms."""
    stages = {id(stage) for part in module.modules() if type(part) is ResNet for stage in part.stages}
    if isinstance(module, Res5ROIHeads):
        stages.add(id(module.res5))

    def replacement(child: nn.Module, name: str, parent: nn.Module) -> nn.Module | None:
        if type(child) is TracedTimmBackbone:
            return child.fuse(layers.conv)
        # Only the next block of a stage reads the output of a block, except at the end of the stage.
        block = fuse_block(child, layers.conv, owns_input=id(parent) in stages and name != "0")
        if block is not None or not only_calls_layers(parent):
            return block
        return layers.conv(child, name) if is_fusible_conv(child) else layers.layer(child, name)

    _replace_modules(module, replacement)


def _replace_modules(module: nn.Module, replacement: Callable[[nn.Module, str, nn.Module], nn.Module | None]) -> None:
    """Replaces each module below `module` by what `replacement` returns for it, its name and its parent; None keeps it and searches below.

    A module with forward hooks, or with a module in it that has some, is kept.
    """
    for name, child in list(module.named_children()):
        new = None if any(map(compat.has_forward_hooks, child.modules())) else replacement(child, name, module)
        if new is None:
            _replace_modules(child, replacement)
            continue
        compat.replace_child(module, name, new)


def _flatten_lists(modules: Sequence[nn.Module]) -> list[nn.Module]:
    """Returns the modules, with each ``ModuleList`` (the stages of a cascade) replaced by its entries."""
    return [part for module in modules for part in (module if isinstance(module, nn.ModuleList) else [module])]
