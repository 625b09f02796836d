"""What is known of a divergence: which losses, which images, which module, in text and as a batch that can be run again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from detectron2.utils import comm
from torch import Tensor, nn, optim

from maskrcnn_ext.engine.guard.batch import draw_batch, save_batch
from maskrcnn_ext.engine.guard.inspection import Trace, faults_of_input, trace


@dataclass(frozen=True)
class Fault:
    """A diverged iteration.

    Attributes:
        iteration: counted from 0.
        losses: by name.
        error: what the model raised instead of giving losses; "" for nothing.
        rates: learning rate of every parameter group.
        inputs: what the model was given.
        input_faults: for each of them what is wrong with it.
        whole: the batch, run once more.
        alone: every image of it, run by itself; empty for a batch of one.
        history: the total losses before, oldest first.
    """

    iteration: int
    losses: dict[str, float]
    error: str
    rates: list[float]
    inputs: list[dict[str, Any]]
    input_faults: list[list[str]]
    whole: Trace
    alone: list[Trace] = field(default_factory=list)
    history: list[float] = field(default_factory=list)

    @property
    def suspects(self) -> list[int]:
        """Indices of the images that are broken themselves; else of those that diverge alone, where the others do not."""
        broken = [index for index, faults in enumerate(self.input_faults) if faults]
        if broken:
            return broken
        alone = [index for index, found in enumerate(self.alone) if found.is_faulty]
        return alone if len(alone) < len(self.alone) else []

    @property
    def first(self) -> str:
        """The first module whose output is not finite; "" where none was found."""
        # A single image that is broken shows it more exactly: the norms of a batch carry it over to the others.
        traces = [self.alone[index] for index in self.suspects if self.alone] + [self.whole, *self.alone]
        return next((str(found.first) for found in traces if found.first is not None), "")

    def what(self) -> str:
        """The symptom, in a few words."""
        bad = [f"{name} is {value}" for name, value in self.losses.items() if not math.isfinite(value)]
        averaged = ", averaged over the processes," if comm.get_world_size() > 1 else ""
        return self.error or ", ".join(bad) or f"the gradients{averaged} are not finite"

    def name_of(self, index: int) -> str:
        """How an image is called: its id and file."""
        sample = self.inputs[index]
        return f"image {sample.get('image_id', index)!r} ({sample.get('file_name', 'no file name')})"

    def summary(self) -> str:
        """One line: what, where and which images."""
        parts = [f"training diverged in iteration {self.iteration}: {self.what()}"]
        if self.first:
            parts.append(f"first not finite: {self.first}")
        told = [
            f"{self.name_of(index)}{': ' + self.input_faults[index][0] if self.input_faults[index] else ''}"
            for index in self.suspects
        ]
        if told:
            parts.append("because of " + ", ".join(told[:3]) + (f" and {len(told) - 3} more" if len(told) > 3 else ""))
        elif self.inputs:
            batch = "this process's batch" if comm.get_world_size() > 1 else "the batch"
            parts.append(f"no image of {batch} is at fault by itself")
        return "; ".join(parts)


def examine(
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
) -> Fault:
    """Finds out what can be found out about a diverged iteration, before anything is changed.

    Args:
        model: not wrapped for several processes; its weights are those that diverged, its gradients may be those of the iteration.
        optimizer: of the model.
        inputs: that the iteration has used.
        iteration: counted from 0.
        losses: scalars; empty where the model raised.
        error: what it raised; "" for nothing.
        random_state: that of the generators before the iteration; None where it is not known.
        autocast: makes the context of mixed precision that training runs in.
        history: earlier total losses.
    """
    values = {name: float(value.detach()) for name, value in losses.items()}
    # Where the losses are finite the fault came up on the way back.
    gradients = not error and all(map(math.isfinite, values.values()))
    whole = trace(model, inputs, random_state=random_state, autocast=autocast, gradients=gradients)
    alone = [
        trace(model, [sample], random_state=random_state, autocast=autocast, gradients=gradients) for sample in inputs
    ]
    num_classes = getattr(getattr(model, "roi_heads", None), "num_classes", None)
    return Fault(
        iteration=iteration,
        losses=values,
        error=error,
        rates=[float(group["lr"]) for group in optimizer.param_groups],
        inputs=inputs,
        input_faults=[faults_of_input(sample, num_classes) for sample in inputs],
        whole=whole,
        alone=alone if len(inputs) > 1 else [],
        history=history,
    )


def write_report(fault: Fault, model: nn.Module, folder: Path) -> Path:
    """Writes ``report.txt``, ``batch.pth`` and ``batch.png``, those of other processes than the main one with their rank in the name.

    Args:
        fault: what is known.
        model: as it was examined.
        folder: made where it is not there.

    Returns:
        The report.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rank = f"_rank{comm.get_rank()}" if comm.get_rank() else ""
    save_batch(
        fault.inputs, folder / f"batch{rank}.pth", iteration=fault.iteration, losses=fault.losses, error=fault.error
    )
    pictured = [index for index, sample in enumerate(fault.inputs) if _is_picture(sample.get("image"))]
    if pictured:
        draw_batch(
            [fault.inputs[index] for index in pictured],
            [fault.name_of(index) for index in pictured],
            [index in fault.suspects for index in pictured],
            str(getattr(model, "input_format", None) or "BGR"),
            folder / f"batch{rank}.png",
        )
    report = folder / f"report{rank}.txt"
    report.write_text("\n".join(_lines(fault, model)) + "\n", encoding="utf-8")
    return report


def _is_picture(image: Any) -> bool:
    return isinstance(image, Tensor) and image.ndim == 3 and image.numel() > 0


def _lines(fault: Fault, model: nn.Module) -> Iterator[str]:
    yield f"Diverged in iteration {fault.iteration}, process {comm.get_rank()} of {comm.get_world_size()}: {fault.what()}"
    yield ""
    yield from _advice(fault)
    yield ""
    yield f"learning rate: {', '.join(f'{rate:.6g}' for rate in sorted(set(fault.rates)))}"
    yield from (f"loss {name}: {value:.6g}" for name, value in fault.losses.items())
    if fault.history:
        yield f"total losses before: {', '.join(f'{value:.4g}' for value in fault.history)}"
    yield ""
    yield f"first module whose output is not finite: {fault.first or 'none'}"
    if not fault.whole.is_faulty:
        yield "  (the batch, run once more, does not diverge: what it draws at random decides)"
    yield ""
    yield "images of the batch:"
    for index in range(len(fault.inputs)):
        yield f"  {fault.name_of(index)}"
        yield from (f"    {text}" for text in fault.input_faults[index])
        if fault.alone:
            found = fault.alone[index]
            if found.is_faulty:
                reason = found.first or found.error or "its gradients are not finite"
                yield f"    alone: diverges, {reason}"
            else:
                yield f"    alone: total loss {sum(found.losses.values()):.6g}"
    yield ""
    if fault.error:
        yield "The gradients are those of the iteration before."
    yield from _tables(model)


def _advice(fault: Fault) -> Iterator[str]:
    if any(fault.input_faults):
        yield "Mend or leave out the images named below: maskrcnn-ext check-data finds such faults in the data set; what it does not"
        yield "find comes from the augmentations. maskrcnn_ext.SafeMapper skips images that cannot be read."
    elif fault.suspects:
        yield "Only some images diverge, and nothing is seen to be wrong with them: look at batch.png and at their annotations."
    else:
        yield "No single image is at fault: the weights have grown too large, or a rate is too high. Lower optimizer.lr, lengthen the"
        yield "warm-up, or set train.clip_grad=1.0. With float16, train.amp.dtype=bf16 has the range of float32."


def _tables(model: nn.Module) -> Iterator[str]:
    rows = []
    for name, module in model.named_modules():
        own = dict(module.named_parameters(recurse=False))
        if not own:
            continue
        grads = [parameter.grad for parameter in own.values() if parameter.grad is not None]
        weights = _norm(own.values())
        rows.append((name or "(the model)", *weights, *(_norm(grads) if grads else (None, 0))))
    bad_weights = [f"{name} ({bad} values)" for name, _, bad, _, _ in rows if bad]
    bad_grads = [f"{name} ({bad} values)" for name, _, _, _, bad in rows if bad]
    yield f"modules with weights that are not finite: {', '.join(bad_weights) or 'none'}"
    yield f"modules with gradients that are not finite: {', '.join(bad_grads) or 'none'}"
    yield ""
    yield f"{'norm of weights':>16} {'of gradients':>16}  module"
    for name, weight, _, grad, _ in rows:
        yield f"{weight:>16.6g} {'-' if grad is None else f'{grad:.6g}':>16}  {name}"


@torch.no_grad()
def _norm(tensors: Any) -> tuple[float, int]:
    """The norm of all values together, and how many of them are not finite."""
    square, bad = 0.0, 0
    for tensor in tensors:
        square += float(tensor.double().square().sum())
        bad += int((~tensor.isfinite()).sum())
    return math.sqrt(square) if math.isfinite(square) else square, bad
