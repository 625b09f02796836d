"""Everything that this package uses of Detectron2, fvcore and torch that is private or differs between their versions, on one page.

No other module may read or write an attribute that begins with an underscore on an object of another package; a test checks that.
Each function here has a test, which runs on Detectron2 v0.6 and on its main branch. Nothing heavy is imported before a function runs.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from maskrcnn_ext.errors import InputError

if TYPE_CHECKING:
    import torch
    from detectron2.modeling.backbone import FPN
    from detectron2.structures import Instances
    from torch import Tensor, nn

M = TypeVar("M", bound="nn.Module")

# Private methods and attributes that subclasses in this package inherit and override, call or read.
INHERITED_MEMBERS = {
    "detectron2.checkpoint.DetectionCheckpointer": (
        "_convert_ndarray_to_tensor",
        "_load_file",
        "_load_model",
        "_log_incompatible_keys",
    ),
    "detectron2.engine.train_loop.SimpleTrainer": ("_data_loader_iter", "_write_metrics"),
    "detectron2.evaluation.COCOEvaluator": (
        "_coco_api",
        "_derive_coco_results",
        "_distributed",
        "_do_evaluation",
        "_eval_box_proposals",
        "_kpt_oks_sigmas",
        "_logger",
        "_max_dets_per_image",
        "_metadata",
        "_output_dir",
        "_predictions",
        "_results",
        "_tasks",
        "_use_fast_impl",
    ),
    "detectron2.modeling.anchor_generator.DefaultAnchorGenerator": ("_grid_anchors",),
    "detectron2.modeling.roi_heads.CascadeROIHeads": (
        "_create_proposals_from_boxes",
        "_forward_box",
        "_match_and_label_boxes",
        "_run_stage",
    ),
    "detectron2.modeling.proposal_generator.RPN": ("_subsample_labels",),
}


# Which Detectron2 is installed. Features are tested, because ``__version__`` is 0.6 on v0.6 and on main.


def detectron2_kind() -> str:
    """Returns "main" for Detectron2's main branch and "v0.6" for the release."""
    from detectron2.layers import ShapeSpec

    # A named tuple in v0.6, a dataclass since.
    return "main" if dataclasses.is_dataclass(ShapeSpec) else "v0.6"


def has_compiled_operators() -> bool:
    """Whether ``detectron2._C`` loads. Deformable and rotated operators and the fast COCOeval need it; Mask R-CNN does not."""
    try:
        from detectron2 import _C
    except ImportError:
        return False
    return isinstance(_C, ModuleType)


def has_vit() -> bool:
    """Whether Detectron2 has the ViT backbone of ViTDet; the main branch has it, v0.6 has not."""
    return importlib.util.find_spec("detectron2.modeling.backbone.vit") is not None


def require_vit() -> None:
    """Raises InputError if Detectron2 has no ViT backbone, or if timm, which the backbone needs, is missing."""
    if not has_vit():
        raise InputError(
            "ViTDet needs detectron2.modeling.backbone.vit, which Detectron2 v0.6 lacks: install Detectron2's main branch "
            "(its INSTALL.md), or choose another config (maskrcnn-ext configs)"
        )
    if importlib.util.find_spec("timm") is None:
        raise InputError('ViTDet needs timm, which Detectron2 does not declare: pip install "maskrcnn_ext[timm]"')


# Training and checkpoints


def set_local_process_group(processes: int) -> None:
    """Defines the processes of this machine for Detectron2's ``comm``, as its launcher does.

    It is for processes that another launcher has started, such as torchrun or SLURM.

    Args:
        processes: number of processes on each machine; ranks are numbered machine by machine.
    """
    import torch.distributed as dist
    from detectron2.utils import comm

    if hasattr(comm, "create_local_process_group"):
        comm.create_local_process_group(processes)
        return
    for first in range(0, dist.get_world_size(), processes):
        ranks = list(range(first, first + processes))
        group = dist.new_group(ranks)
        if dist.get_rank() in ranks:
            # v0.6 has no function for it; its launcher sets the variable, too.
            comm._LOCAL_PROCESS_GROUP = group


def registered_hooks(trainer: Any) -> list[Any]:
    """Returns the hooks of a trainer, in the order in which they run."""
    hooks: list[Any] = trainer._hooks
    return hooks


def stored_images(storage: Any) -> list[tuple[str, Any, int]]:
    """Returns the images of an event storage as Detectron2's TensorBoard writer reads them: name, pixels (3, H, W), iteration."""
    images: list[tuple[str, Any, int]] = storage._vis_data
    return images


def evaluated_annotations(evaluator: Any) -> list[dict[str, Any]]:
    """Returns the annotations that Detectron2's COCOEvaluator has read; an empty list for a test set without annotations."""
    annotations: list[dict[str, Any]] = evaluator._coco_api.dataset.get("annotations", [])
    return annotations


def strip_prefix(state: dict[str, Any], prefix: str) -> None:
    """Removes a prefix from all names of a state dict, in place, if every name has it."""
    from fvcore.common.checkpoint import _strip_prefix_if_present

    _strip_prefix_if_present(state, prefix)


def let_scaler_skip_steps(optimizer: Any) -> None:
    """Makes the gradient scaler leave out a step with infinite gradients, also for a fused optimizer, which would do so by itself."""
    optimizer._step_supports_amp_scaling = False


def checkpoint_wrapper(block: nn.Module, context_fn: Callable[[], tuple[Any, Any]]) -> nn.Module:
    """Wraps a block so that the backward pass computes its activations again; names in the state dict stay.

    Args:
        block: the module to wrap.
        context_fn: returns the context managers of the forward pass and of its repetition.
    """
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper as wrap

    wrapped: nn.Module = wrap(block, context_fn=context_fn)
    return wrapped


# Models


def fpn_fuse_type(fpn: FPN) -> str:
    """Returns how an FPN fuses two levels: "sum" or "avg"."""
    fuse_type: str = fpn._fuse_type
    return fuse_type


def rescale_to_inputs(
    results: list[Instances], inputs: list[dict[str, Any]], image_sizes: Sequence[tuple[int, int]]
) -> list[dict[str, Instances]]:
    """Brings raw results to the images as stored, as GeneralizedRCNN does after inference.

    Args:
        results: one an image, in the frame of the model's input.
        inputs: the model's inputs; ``height`` and ``width`` are those of the stored image.
        image_sizes: height and width of the model's input images, without padding.
    """
    from detectron2.modeling import GeneralizedRCNN

    rescaled: list[dict[str, Instances]] = GeneralizedRCNN._postprocess(results, inputs, image_sizes)
    return rescaled


def change_class(module: nn.Module, cls: type[M]) -> M:
    """Turns a module into an instance of a subclass of its class, in place: every reference to it, parameters and hooks stay valid."""
    if not issubclass(cls, type(module)):
        raise TypeError(f"{cls.__name__} is not a subclass of {type(module).__name__}")
    module.__class__ = cls
    return module


def restore_class(module: nn.Module) -> None:
    """Undoes :func:`change_class`: the last base of the class is the class before."""
    module.__class__ = type(module).__bases__[-1]


def replace_child(parent: nn.Module, name: str, replacement: nn.Module) -> None:
    """Replaces a submodule, also in the plain lists in which Detectron2 keeps layers a second time, such as ``FPN.lateral_convs``."""
    child = getattr(parent, name)
    setattr(parent, name, replacement)
    for value in vars(parent).values():
        if isinstance(value, list):
            value[:] = [replacement if entry is child else entry for entry in value]


def register_load_pre_hook(module: nn.Module, hook: Callable[..., None]) -> None:
    """Calls ``hook(module, state_dict, ...)`` before a module takes weights from a state dict; torch before 2.5 has no public function."""
    if hasattr(module, "register_load_state_dict_pre_hook"):
        module.register_load_state_dict_pre_hook(hook)
    else:
        module._register_load_state_dict_pre_hook(hook, with_module=True)


# torch


def is_recording() -> bool:
    """Whether the running code is traced, exported or compiled, which cannot record calls through ctypes."""
    import torch

    return torch.jit.is_tracing() or torch.compiler.is_compiling()


def has_forward_hooks(module: nn.Module) -> bool:
    """Whether a module has forward hooks, which would be lost with it, or which compute its weights."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def is_batch_norm(module: nn.Module) -> bool:
    """Whether a module is a batch normalisation of any dimension, synchronised or not."""
    from torch.nn.modules.batchnorm import _BatchNorm

    return isinstance(module, _BatchNorm)


def is_dropout(module: nn.Module) -> bool:
    """Whether a module is a dropout of any kind, including DropPath (stochastic depth), which Detectron2's ViT takes from timm."""
    from torch.nn.modules.dropout import _DropoutNd

    return isinstance(module, _DropoutNd) or type(module).__name__ == "DropPath"


def tensor_norms(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Returns the 2-norm of each tensor, a scalar on the tensor's device, in few kernels and without waiting for the device."""
    import torch

    return list(torch._foreach_norm(list(tensors)))


def cpu_instructions() -> list[str]:
    """Returns the instruction sets for fast matrix products that this CPU has and torch knows of, such as "AVX2" and "AMX"."""
    import torch

    queries = {
        "AVX2": "_is_avx2_supported",
        "AVX-512": "_is_avx512_supported",
        "AVX-512 VNNI": "_is_vnni_supported",
        "AVX-512 BF16": "_is_avx512_bf16_supported",
        "AMX": "_is_amx_tile_supported",
    }
    # `bool` returns False: this torch has no such query.
    return [name for name, query in queries.items() if getattr(torch.cpu, query, bool)()]


def fused_cpu_convolution(dtype: torch.dtype | None = None) -> Any:
    """Returns oneDNN's convolution with activation and sum, which torch's compiler uses on a CPU.

    Returns None if this torch has none, or if `dtype` is bfloat16 and the CPU lacks the instructions that oneDNN needs for it.
    """
    import torch

    if not torch.backends.mkldnn.is_available():
        return None
    if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return None
    return getattr(torch.ops.mkldnn, "_convolution_pointwise", None)


def onednn_int8() -> Any:
    """Returns oneDNN's operators on 8-bit integers, which torch's compiler uses on a CPU.

    Returns None if this torch has none, or if the CPU lacks instructions for products of 8-bit integers.
    """
    import torch

    operators = getattr(torch.ops, "onednn", None)
    names = ("qconv_prepack", "qconv2d_pointwise", "qlinear_prepack", "qlinear_pointwise")
    if not torch.backends.mkldnn.is_available() or not all(hasattr(operators, name) for name in names):
        return None
    return operators if {"AVX-512 VNNI", "AMX"}.intersection(cpu_instructions()) else None


@contextmanager
def observed_operators(observe: Callable[[Any, Any, Any, Any], None]) -> Iterator[None]:
    """Calls ``observe(operator, args, kwargs, result)`` after each ATen operator that runs in the block.

    The operator is the overload packet, such as ``torch.ops.aten.mm``, as the registry of ``torch.utils.flop_counter`` has it.
    """
    from torch.utils._python_dispatch import TorchDispatchMode

    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = function(*args, **(kwargs or {}))
            observe(function._overloadpacket, args, kwargs or {}, result)
            return result

    with Mode():
        yield


def tensors_in(value: Any) -> list[Tensor]:
    """Returns the tensors in nested tuples, lists and dicts."""
    import torch
    from torch.utils._pytree import tree_leaves

    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]


@contextmanager
def quiet_onnx_exporter() -> Iterator[None]:
    """Keeps torch's ONNX exporter from printing the whole graph, thousands of lines, when it fails."""
    import torch

    set_log = getattr(torch._C, "_jit_set_onnx_log_enabled", lambda _: None)
    set_log(False)
    try:
        yield
    finally:
        set_log(True)
