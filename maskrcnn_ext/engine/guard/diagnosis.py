"""Finds the cause of a diverged iteration: faulty inputs, images that diverge alone, and the first module with a non-finite output."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from detectron2.layers.batch_norm import NaiveSyncBatchNorm
from detectron2.structures import Instances
from detectron2.utils import comm
from torch import Tensor, nn, optim

from maskrcnn_ext.common.random_state import get_random_state, set_random_state
from maskrcnn_ext.common.text import first_line, short_list
from maskrcnn_ext.engine.preserved_model import preserved_model


@dataclass(frozen=True)
class NonFiniteOutput:
    """The first output of a module that contains NaN or infinity.

    Attributes:
        module: the module's name in the model, and its class.
        output: path of the tensor in the output, such as "['loss_rpn_loc']"; "" if the output is a tensor.
        bad: number of values of this tensor that are not finite.
        total: number of its values.
        inherited: whether the module's input is already not finite, because of an operation between modules or of the image.
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
class RerunResult:
    """Result of running a batch a second time.

    Attributes:
        first: the first output that is not finite, in the order in which modules finish; None if all are finite.
        losses: values by name; empty if the model raised.
        error: the exception of the model; "" for none.
        bad_gradients: whether the losses are finite and their gradients are not; False if gradients were not computed.
    """

    first: NonFiniteOutput | None = None
    losses: dict[str, float] = field(default_factory=dict)
    error: str = ""
    bad_gradients: bool = False

    @property
    def is_faulty(self) -> bool:
        """Whether the rerun diverged as well."""
        return bool(self.first or self.error or self.bad_gradients)


@dataclass(frozen=True)
class DivergedIteration:
    """The facts about a diverged iteration.

    Attributes:
        iteration: counted from 0.
        losses: values by name.
        error: the exception that the model raised instead of returning losses; "" for none.
        rates: learning rate of every parameter group.
        inputs: the inputs of the model.
        input_faults: faults of each input, in the same order.
        whole: result of running the batch again.
        alone: result of running every image by itself; empty for a batch of one.
        history: the total losses before, oldest first.
    """

    iteration: int
    losses: dict[str, float]
    error: str
    rates: list[float]
    inputs: list[dict[str, Any]]
    input_faults: list[list[str]]
    whole: RerunResult
    alone: list[RerunResult] = field(default_factory=list)
    history: list[float] = field(default_factory=list)

    @property
    def suspects(self) -> list[int]:
        """Indices of the images with faults; without faults, of those that diverge alone while others do not."""
        broken = [index for index, faults in enumerate(self.input_faults) if faults]
        if broken:
            return broken
        alone = [index for index, rerun in enumerate(self.alone) if rerun.is_faulty]
        return alone if len(alone) < len(self.alone) else []

    @property
    def first_module(self) -> str:
        """The first module whose output is not finite; "" if none was found."""
        # A faulty image by itself shows it more exactly: in a batch, norms spread the fault to the other images.
        reruns = [self.alone[index] for index in self.suspects if self.alone] + [self.whole, *self.alone]
        return next((str(rerun.first) for rerun in reruns if rerun.first is not None), "")

    def symptom(self) -> str:
        """Returns the observation in a few words."""
        bad = [f"{name} is {value}" for name, value in self.losses.items() if not math.isfinite(value)]
        averaged = ", averaged over the processes," if comm.get_world_size() > 1 else ""
        return self.error or ", ".join(bad) or f"the gradients{averaged} are not finite"

    def image_name(self, index: int) -> str:
        """Returns the id and the file of an image."""
        sample = self.inputs[index]
        return f"image {sample.get('image_id', index)!r} ({sample.get('file_name', 'no file name')})"

    def summary(self) -> str:
        """Returns one line with the symptom, the module and the images that caused it."""
        parts = [f"training diverged in iteration {self.iteration}: {self.symptom()}"]
        if self.first_module:
            parts.append(f"first not finite: {self.first_module}")
        causes = [": ".join([self.image_name(index), *self.input_faults[index][:1]]) for index in self.suspects]
        if causes:
            parts.append(f"because of {short_list(causes, 3)}")
        elif self.inputs:
            batch = "this process's batch" if comm.get_world_size() > 1 else "the batch"
            parts.append(f"no image of {batch} is at fault by itself")
        return "; ".join(parts)


def diagnose_iteration(
    model: nn.Module,
    optimizer: optim.Optimizer,
    inputs: list[dict[str, Any]],
    *,
    iteration: int,
    losses: Mapping[str, Tensor],
    error: str,
    random_state: dict[str, Any] | None,
    autocast: Callable[[], AbstractContextManager[Any]],
    history: list[float],
) -> DivergedIteration:
    """Runs a diverged batch again, whole and image by image, and collects the facts about it. Changes nothing.

    Args:
        model: not wrapped in DistributedDataParallel; it still has the weights that diverged.
        optimizer: the model's optimizer.
        inputs: the inputs of the iteration.
        iteration: counted from 0.
        losses: scalars; empty if the model raised.
        error: the exception of the model; "" for none.
        random_state: state of the generators before the iteration; None if it is unknown.
        autocast: returns the mixed precision context of the training.
        history: earlier total losses.
    """
    values = {name: float(value.detach()) for name, value in losses.items()}
    # If the losses are finite, the fault arose in the backward pass.
    gradients = not error and all(map(math.isfinite, values.values()))

    def rerun(batch: list[dict[str, Any]]) -> RerunResult:
        return rerun_batch(model, batch, random_state=random_state, autocast=autocast, gradients=gradients)

    whole = rerun(inputs)
    alone = [rerun([sample]) for sample in inputs] if len(inputs) > 1 else []
    num_classes = getattr(getattr(model, "roi_heads", None), "num_classes", None)
    return DivergedIteration(
        iteration=iteration,
        losses=values,
        error=error,
        rates=[float(group["lr"]) for group in optimizer.param_groups],
        inputs=inputs,
        input_faults=[find_input_faults(sample, num_classes) for sample in inputs],
        whole=whole,
        alone=alone,
        history=history,
    )


def rerun_batch(
    model: nn.Module,
    inputs: list[dict[str, Any]],
    *,
    random_state: dict[str, Any] | None,
    autocast: Callable[[], AbstractContextManager[Any]],
    gradients: bool = False,
) -> RerunResult:
    """Runs a batch through a model and checks the output of every module. Training is not affected.

    Args:
        model: in training mode, not wrapped in DistributedDataParallel.
        inputs: the inputs of the model.
        random_state: state to start from, of :func:`maskrcnn_ext.common.random_state.get_random_state`; None for the present one.
        autocast: returns the mixed precision context for the forward pass.
        gradients: whether to compute the gradients of finite losses as well; the parameters' ``.grad`` is not changed.
    """
    result = RerunResult()

    def check_outputs_of(name: str, module: nn.Module) -> Callable[..., None]:
        def hook(_module: nn.Module, given: Any, output: Any) -> None:
            bad = _first_non_finite(output) if result.first is None else None
            if bad is not None:
                title = f"{name or 'the model'} ({type(module).__name__})"
                result.first = NonFiniteOutput(title, *bad, inherited=_first_non_finite(given) is not None)

        return hook

    start = get_random_state() if random_state is None else random_state
    handles = [module.register_forward_hook(check_outputs_of(name, module)) for name, module in model.named_modules()]
    try:
        with preserved_model(model), torch.set_grad_enabled(gradients):
            if comm.get_world_size() > 1:  # synchronised norms in training mode would wait for the other processes
                for norm in model.modules():
                    if isinstance(norm, nn.SyncBatchNorm | NaiveSyncBatchNorm):
                        norm.eval()
            set_random_state(start)
            with autocast():
                losses = model(inputs)
            losses = {"total_loss": losses} if isinstance(losses, Tensor) else losses
            result.losses = {name: float(value.detach()) for name, value in losses.items()}
            if gradients and result.first is None:
                wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
                grads = torch.autograd.grad(sum(losses.values()), wanted, allow_unused=True)
                result.bad_gradients = any(grad is not None and not bool(grad.isfinite().all()) for grad in grads)
    except (ArithmeticError, RuntimeError, ValueError, IndexError, AssertionError) as error:
        # Raised on values that are not finite, or if a second pass does not fit into memory: part of the diagnosis.
        result.error = f"{type(error).__name__}: {first_line(error)}"
    finally:
        for handle in handles:
            handle.remove()
    return result


def _first_non_finite(value: Any) -> tuple[str, int, int] | None:
    """Returns path, number of non-finite values and number of values of the first tensor that is not finite; else None."""
    for path, tensor in find_tensors(value):
        if tensor.is_floating_point():
            bad = int((~tensor.isfinite()).sum())
            if bad:
                return path, bad, tensor.numel()
    return None


def find_tensors(value: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yields the tensors inside nested containers and Detectron2's structures, each with its path.

    Example:
        >>> [path for path, _ in find_tensors({"a": [torch.zeros(1), torch.zeros(2)]})]
        ["['a'][0]", "['a'][1]"]
    """
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from find_tensors(inner, f"{path}[{key!r}]")
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from find_tensors(inner, f"{path}[{index}]")
    elif isinstance(value, Instances):
        for key, inner in value.get_fields().items():
            yield from find_tensors(inner, f"{path}.{key}")
    elif isinstance(getattr(value, "tensor", None), Tensor):  # Boxes, BitMasks, Keypoints, ImageList
        yield path, value.tensor


def find_input_faults(sample: Mapping[str, Any], num_classes: int | None) -> list[str]:
    """Returns the faults of one input of a model in its pixels, boxes and classes, each as a short phrase.

    Args:
        sample: a mapped record with ``image`` and, in training, ``instances``.
        num_classes: number of classes of the model; None if it is unknown.

    Example:
        >>> find_input_faults({"image": torch.full((3, 2, 2), torch.nan)}, num_classes=1)
        ['12 of 12 pixel values are not finite']
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
            fault = _find_box_fault(box, width, height)
            if fault:
                found.append(f"box {index} ({', '.join(f'{value:g}' for value in box)}) {fault}")
    if instances.has("gt_classes") and num_classes is not None:
        outside = sorted({int(c) for c in instances.gt_classes if not 0 <= int(c) < num_classes})
        if outside:
            found.append(f"classes {', '.join(map(str, outside))}, but the model has 0 to {num_classes - 1}")
    return found


def _find_box_fault(box: list[float], width: int, height: int) -> str:
    x0, y0, x1, y1 = box
    if not all(abs(value) < float("inf") for value in box):  # also False for NaN
        return "is not finite"
    if x1 <= x0 or y1 <= y0:
        return "has no area"
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        return f"is outside the image of {width} x {height}"
    return ""
