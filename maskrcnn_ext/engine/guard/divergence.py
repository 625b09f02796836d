"""Looks at every step before the weights change: what is not finite is explained, and ends the run, is left out or undone."""

from __future__ import annotations

import copy
import logging
from collections import deque
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from detectron2.engine import HookBase
from detectron2.engine.hooks import LRScheduler
from detectron2.utils import comm
from torch import Tensor, nn, optim
from torch.nn.parallel import DistributedDataParallel

from maskrcnn_ext.common.random_state import get_random_state
from maskrcnn_ext.compat import registered_hooks, tensor_norms
from maskrcnn_ext.engine.guard.inspection import clone_buffers, restore_buffers
from maskrcnn_ext.engine.guard.report import Fault, examine, write_report
from maskrcnn_ext.errors import InputError

logger = logging.getLogger(__name__)

ACTIONS = ("stop", "skip", "rollback")
# More in a row are no accident.
_MOST_IN_A_ROW = 10
# Halving so often takes a rate that was a thousand times too high to where it should be.
_MOST_ROLLBACKS = 10
_SNAPSHOT_PERIOD = 100
# Each has the whole batch with it.
_MOST_REPORTS = 5


class Diverged(InputError):  # noqa: N818 (it is no mistake in the program)
    """A loss or a gradient is not finite, and the run cannot go on; the message says where the report is."""


class DivergenceGuard(HookBase):
    """Asked by the trainer in every iteration, on every process alike; also one of its hooks, the first.

    While all is finite it reads, and changes nothing: losses and weights are, bit for bit, those of a run without it.
    """

    def __init__(self, output_dir: str | Path, *, on_fault: str = "stop") -> None:
        """Prepares.

        Args:
            output_dir: the reports go to its folder ``divergence/iter_<iteration>/``.
            on_fault: "stop" ends the run; "skip" leaves the step out, and ends after more than 10 in a row; "rollback" puts weights and
                optimizer back to where they were 100 to 200 good iterations before, and halves every learning rate for the rest of the
                run, at most 10 times.

        Raises:
            InputError: `on_fault` is none of these.
        """
        if on_fault not in ACTIONS:
            raise InputError(f"train.guard.on_fault={on_fault}: expected {', '.join(ACTIONS)}")
        self._folder = Path(output_dir) / "divergence"
        self._on_fault = on_fault
        self._random_state: dict[str, Any] | None = None
        self._buffers: dict[str, Tensor] = {}
        # The newer one may hold weights that were already on their way: it counts once another has followed.
        self._snapshots: deque[_Snapshot] = deque(maxlen=2)
        self._good = 0
        self._in_a_row = 0
        self._reports = 0
        self.skipped = 0
        self.rollbacks = 0

    def before_step(self) -> None:
        """Keeps what a second pass starts from, and what the forward pass of an iteration without a step must not have changed."""
        self._random_state = get_random_state()
        self._buffers = clone_buffers(_inner(self.trainer.model))

    def allows_backward(self, trainer: Any, error: FloatingPointError | None) -> bool:
        """Returns whether the iteration goes on after its forward pass; called on every process, before the backward pass.

        Detectron2's RPN raises in the forward pass where predictions are not finite. Were the backward pass begun in the other processes,
        they would wait for this one forever.

        Args:
            trainer: with model, optimizer, batch, iter and storage.
            error: what the model has raised; None for nothing.

        Raises:
            Diverged: the run is to end.
        """
        if not self._anywhere(trainer, error is not None):
            return True
        self._handle(trainer, {}, f"{error}" if error is not None else "another process's model raised")
        return False

    def allows_step(self, trainer: Any, losses: dict[str, Tensor]) -> bool:
        """Returns whether the optimizer may step; called on every process, after the backward pass and before gradients are clipped.

        Args:
            trainer: with model, optimizer, batch, iter and storage; a gradient scaler, where there is one, is its `grad_scaler`.
            losses: scalars by name.

        Raises:
            Diverged: the run is to end.
        """
        values = [value.detach() for value in losses.values()]
        # A scaler looks for gradients that overflow itself, leaves such steps out and scales less.
        if getattr(trainer, "grad_scaler", None) is None:
            groups = trainer.optimizer.param_groups
            values += [p.grad for group in groups for p in group["params"] if p.grad is not None]
        if self._anywhere(trainer, not _are_finite(values)):
            self._handle(trainer, losses, "")
            return False
        self._in_a_row = 0
        if self._on_fault == "rollback":
            if self._good % _SNAPSHOT_PERIOD == 0:
                self._snapshots.append(_Snapshot(_inner(trainer.model), trainer.optimizer))
            self._good += 1
        return True

    def _anywhere(self, trainer: Any, fault: bool) -> bool:
        if comm.get_world_size() == 1:
            return fault
        flag = torch.tensor(float(fault), device=next(trainer.model.parameters()).device)
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag)

    def _handle(self, trainer: Any, losses: dict[str, Tensor], error: str) -> None:
        summary = self._report(trainer, losses, error)
        logger.error("%s", summary)
        # Running statistics that have seen the fault would not be finite ever after.
        restore_buffers(_inner(trainer.model), self._buffers)
        self._in_a_row += 1
        if self._on_fault == "stop":
            raise Diverged(f"{summary} (train.guard.on_fault=skip or rollback would go on)")
        if self._on_fault == "skip":
            if self._in_a_row > _MOST_IN_A_ROW:
                raise Diverged(f"{self._in_a_row} iterations in a row diverged; the last: {summary}")
            self.skipped += 1
            trainer.storage.put_scalar("divergence/skipped", self.skipped, smoothing_hint=False)
            logger.warning("Left out a step: %d in this run", self.skipped)
            return
        self._roll_back(trainer, summary)

    def _roll_back(self, trainer: Any, summary: str) -> None:
        if not self._snapshots:
            raise Diverged(f"the first iteration already diverged, there is nothing to go back to: {summary}")
        if self.rollbacks == _MOST_ROLLBACKS:
            raise Diverged(f"rolled back {self.rollbacks} times, and again: {summary}")
        while len(self._snapshots) > 1:
            self._snapshots.pop()
        self._snapshots[0].restore(_inner(trainer.model), trainer.optimizer)
        self._good = 1  # the snapshot is that of the iteration that comes next
        halve_rates(trainer)
        self.rollbacks += 1
        trainer.storage.put_scalar("divergence/rollbacks", self.rollbacks, smoothing_hint=False)
        logger.warning("Rolled back, and halved every learning rate: %d times in this run", self.rollbacks)

    def _report(self, trainer: Any, losses: dict[str, Tensor], error: str) -> str:
        """Writes the report; returns one line that says what it says and where it is."""
        history: list[float] = []
        if "total_loss" in trainer.storage.histories():
            history = [value for value, _ in trainer.storage.history("total_loss").values()[-20:]]
        fault: Fault = examine(
            _inner(trainer.model),
            trainer.optimizer,
            list(trainer.batch),
            iteration=trainer.iter,
            losses=losses,
            error=error,
            random_state=self._random_state,
            autocast=getattr(trainer, "autocast", nullcontext),
            history=history,
        )
        if self._reports == _MOST_REPORTS:
            return fault.summary()
        self._reports += 1
        try:
            report = write_report(fault, _inner(trainer.model), self._folder / f"iter_{trainer.iter:07d}")
        except OSError as problem:  # a full disk must not hide what has happened
            return f"{fault.summary()}; the report could not be written ({problem})"
        return f"{fault.summary()}; see {report}"

    def state_dict(self) -> dict[str, Any]:
        """Returns the counts, {} while nothing has happened."""
        return {"skipped": self.skipped, "rollbacks": self.rollbacks} if self.skipped or self.rollbacks else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes what :meth:`state_dict` has returned."""
        self.skipped, self.rollbacks = state_dict["skipped"], state_dict["rollbacks"]


def _are_finite(tensors: list[Tensor]) -> bool:
    """Whether every value is finite; waits for the device once."""
    norms = [norm.float() for norm in tensor_norms(tensors)]
    if bool(torch.stack([norm.to(norms[0].device) for norm in norms]).isfinite().all()):
        return True
    # A sum of squares overflows before its terms do.
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


def halve_rates(trainer: Any) -> None:
    """Halves the learning rate of every group for the rest of the run: the present one, and those that its scheduler multiplies."""
    for group in trainer.optimizer.param_groups:
        for key in ("lr", "initial_lr"):  # from the latter a resumed run makes its scheduler
            if key in group:
                group[key] = group[key] * 0.5
    for hook in registered_hooks(trainer):
        if isinstance(hook, LRScheduler):
            hook.scheduler.base_lrs = [rate * 0.5 for rate in hook.scheduler.base_lrs]


class _Snapshot:
    """Weights, buffers and the optimizer's state, on the CPU."""

    def __init__(self, model: nn.Module, optimizer: optim.Optimizer) -> None:
        self._model = _to_cpu(model.state_dict())
        self._state = _to_cpu(optimizer.state_dict()["state"])

    def restore(self, model: nn.Module, optimizer: optim.Optimizer) -> None:
        """Puts all back but the settings of the parameter groups, such as their rates. The snapshot can be used again."""
        model.load_state_dict(self._model)
        groups = optimizer.state_dict()["param_groups"]
        # The optimizer keeps the tensors that it is given.
        optimizer.load_state_dict({"state": copy.deepcopy(self._state), "param_groups": groups})


def _to_cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    return {key: _to_cpu(inner) for key, inner in value.items()} if isinstance(value, dict) else value


def _inner(model: nn.Module) -> nn.Module:
    inner: nn.Module = model.module if isinstance(model, DistributedDataParallel) else model
    return inner
