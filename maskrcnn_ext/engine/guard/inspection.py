"""Where in a batch and in a model numbers stop being finite. Nothing that training goes on with is changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from detectron2.layers.batch_norm import FrozenBatchNorm2d, NaiveSyncBatchNorm
from detectron2.structures import Instances
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from maskrcnn_ext.common.random_state import get_random_state, set_random_state


@dataclass(frozen=True)
class Place:
    """Where the first number that is not finite came up.

    Attributes:
        module: its name in the model, and its class.
        output: which of its outputs, such as "['loss_rpn_loc']"; "" for the only one.
        bad: how many of the values of this output are not finite.
        total: how many values it has.
        inherited: whether what the module was given is not finite already: an operation between modules, or the image, made it so.
    """

    module: str
    output: str
    bad: int
    total: int
    inherited: bool

    def __str__(self) -> str:
        output = f": output {self.output}" if self.output else ""
        inherited = ", like its input" if self.inherited else ""
        return f"{self.module}{output} ({self.bad} of {self.total} values{inherited})"


@dataclass
class Trace:
    """What a second forward pass has shown.

    Attributes:
        first: the first output that is not finite, in the order in which modules end; None where all are.
        losses: by name; empty where the model raised.
        error: what the model raised; "" for nothing.
        bad_gradients: whether the losses are finite and their gradients are not; known only where it was asked for.
    """

    first: Place | None = None
    losses: dict[str, float] = field(default_factory=dict)
    error: str = ""
    bad_gradients: bool = False

    @property
    def is_faulty(self) -> bool:
        """Whether the fault showed."""
        return bool(self.first or self.error or self.bad_gradients)


def trace(
    model: nn.Module,
    inputs: list[dict[str, Any]],
    *,
    random_state: dict[str, Any] | None,
    autocast: Callable[[], AbstractContextManager[Any]],
    gradients: bool = False,
) -> Trace:
    """Runs a batch once more through a model, not wrapped for several processes, and looks at what every module gives.

    Args:
        model: in training mode.
        inputs: of the model.
        random_state: to run it from, see :func:`maskrcnn_ext.common.random_state.get_random_state`; None for the present one.
        autocast: makes the context of mixed precision that the pass is to run in.
        gradients: compute those of finite losses as well; the parameters' ``.grad`` stay as they are.
    """
    found = Trace()

    def look(name: str, module: nn.Module) -> Callable[..., None]:
        def hook(_module: nn.Module, given: Any, output: Any) -> None:
            bad = _first_bad(output) if found.first is None else None
            if bad is not None:
                title = f"{name or 'the model'} ({type(module).__name__})"
                found.first = Place(title, *bad, inherited=_first_bad(given) is not None)

        return hook

    handles = [module.register_forward_hook(look(name, module)) for name, module in model.named_modules()]
    try:
        with _undisturbed(model), EventStorage(0), torch.set_grad_enabled(gradients):
            if random_state is not None:
                set_random_state(random_state)
            with autocast():
                losses = model(inputs)
            losses = {"total_loss": losses} if isinstance(losses, Tensor) else losses
            found.losses = {name: float(value.detach()) for name, value in losses.items()}
            if gradients and found.first is None:
                wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
                grads = torch.autograd.grad(sum(losses.values()), wanted, allow_unused=True)
                found.bad_gradients = any(grad is not None and not bool(grad.isfinite().all()) for grad in grads)
    except (ArithmeticError, RuntimeError, ValueError, IndexError, AssertionError) as error:
        # What raises on numbers that are not finite, or lacks the memory for a second pass: the diagnosis says so and goes on.
        found.error = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
    finally:
        for handle in handles:
            handle.remove()
    return found


def _first_bad(value: Any) -> tuple[str, int, int] | None:
    """Where the first tensor is that is not finite, how many of its values are not, and how many it has."""
    for where, tensor in tensors_of(value):
        if tensor.is_floating_point():
            bad = int((~tensor.isfinite()).sum())
            if bad:
                return where, bad, tensor.numel()
    return None


def tensors_of(value: Any, where: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors inside what modules take and give: nested containers and Detectron2's structures; with where each one is."""
    if isinstance(value, Tensor):
        yield where, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from tensors_of(inner, f"{where}[{key!r}]")
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from tensors_of(inner, f"{where}[{index}]")
    elif isinstance(value, Instances):
        for key, inner in value.get_fields().items():
            yield from tensors_of(inner, f"{where}.{key}")
    elif isinstance(getattr(value, "tensor", None), Tensor):  # Boxes, BitMasks, Keypoints, ImageList
        yield where, value.tensor


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Afterwards buffers and random generators are as they were; inside, no layer waits for other processes."""
    buffers = clone_buffers(model)
    generators = get_random_state()
    alone = comm.get_world_size() == 1
    kinds = (nn.SyncBatchNorm, NaiveSyncBatchNorm)
    waiting = [m for m in model.modules() if not alone and isinstance(m, kinds) and m.training]
    try:
        for module in waiting:
            module.eval()
        yield
    finally:
        for module in waiting:
            module.train()
        restore_buffers(model, buffers)
        set_random_state(generators)


def clone_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Returns copies of a model's buffers, such as the running statistics of BatchNorm, but for those that never change."""
    return {
        f"{prefix}.{name}" if prefix else name: buffer.detach().clone()
        for prefix, module in model.named_modules()
        if not isinstance(module, FrozenBatchNorm2d)
        for name, buffer in module.named_buffers(recurse=False)
    }


@torch.no_grad()
def restore_buffers(model: nn.Module, kept: dict[str, Tensor]) -> None:
    """Puts back what :func:`clone_buffers` has returned."""
    for name, buffer in model.named_buffers():
        if name in kept and kept[name].shape == buffer.shape:
            buffer.copy_(kept[name])


def faults_of_input(sample: Mapping[str, Any], num_classes: int | None) -> list[str]:
    """Returns what is wrong with one input of a model: pixels, boxes, classes, each a short phrase.

    Args:
        sample: a mapped record with ``image`` and, in training, ``instances``.
        num_classes: of the model; None where it is not known.
    """
    found = []
    image = sample.get("image")
    if isinstance(image, Tensor) and image.is_floating_point():
        bad = int((~image.isfinite()).sum())
        if bad:
            found.append(f"{bad} of {image.numel()} pixel values are not finite")
    instances = sample.get("instances")
    if not isinstance(instances, Instances):
        return found
    if instances.has("gt_boxes"):
        height, width = instances.image_size
        for index, box in enumerate(instances.gt_boxes.tensor.tolist()):
            fault = _fault_of_box(box, width, height)
            if fault:
                found.append(f"box {index} ({', '.join(f'{value:g}' for value in box)}) {fault}")
    if instances.has("gt_classes") and num_classes is not None:
        outside = sorted({int(c) for c in instances.gt_classes if not 0 <= int(c) < num_classes})
        if outside:
            found.append(f"classes {', '.join(map(str, outside))}, where the model has 0 to {num_classes - 1}")
    return found


def _fault_of_box(box: list[float], width: int, height: int) -> str:
    x0, y0, x1, y1 = box
    if not all(abs(value) < float("inf") for value in box):  # nan compares as false
        return "is not finite"
    if x1 <= x0 or y1 <= y0:
        return "has no area"
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        return f"lies outside of the image, {width} x {height}"
    return ""
