"""Checks losses and gradients before every optimizer step; a step that diverged stops the run, is skipped, or is rolled back."""

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
from detectron2.layers.batch_norm import FrozenBatchNorm2d
from detectron2.utils import comm
from torch import Tensor, nn, optim

from maskrcnn_ext.common.distributed import unwrap_ddp
from maskrcnn_ext.common.files import WriteError
from maskrcnn_ext.common.random_state import get_random_state
from maskrcnn_ext.compat import registered_hooks, tensor_norms
from maskrcnn_ext.engine.guard.diagnosis import diagnose_iteration
from maskrcnn_ext.engine.guard.report import write_report
from maskrcnn_ext.errors import InputError

logger = logging.getLogger(__name__)

ACTIONS = ("stop", "skip", "rollback")
# More skipped steps in a row than this are not a coincidence.
_MAX_SKIPS_IN_A_ROW = 10
# Ten halvings correct a learning rate that is a thousand times too high.
_MAX_ROLLBACKS = 10
_SNAPSHOT_PERIOD = 100
# Every report contains the whole batch.
_MAX_REPORTS = 5


class Diverged(InputError):  # noqa: N818 (not a programming error)
    """A loss or a gradient is not finite and the run cannot continue; the message names the report."""


class DivergenceGuard(HookBase):
    """Checks every iteration for values that are not finite. The trainer calls it on every process; it is also its first hook.

    While everything is finite it only reads: losses and weights equal those of a run without it, bit for bit.

    Example::

        train.guard.enabled=true train.guard.on_fault=rollback
    """

    def __init__(self, output_dir: str | Path, *, on_fault: str = "stop") -> None:
        """Prepares.

        Args:
            output_dir: reports are written to its folder ``divergence/iter_<iteration>/``.
            on_fault: "stop" ends the run; "skip" skips the step, and ends the run after more than 10 in a row; "rollback" restores the
                weights and the optimizer of 100 to 200 good iterations before, and halves every learning rate for the rest of the run,
                at most 10 times.

        Raises:
            InputError: `on_fault` is invalid.
        """
        if on_fault not in ACTIONS:
            raise InputError(f"train.guard.on_fault={on_fault}: expected {', '.join(ACTIONS)}")
        self._folder = Path(output_dir) / "divergence"
        self._on_fault = on_fault
        self._random_state: dict[str, Any] | None = None
        self._buffers: dict[str, Tensor] = {}
        # The weights of the newer snapshot may already have been diverging, so the older one is restored.
        self._snapshots: deque[_Snapshot] = deque(maxlen=2)
        self._good = 0
        self._in_a_row = 0
        self._reports = 0
        self.skipped = 0
        self.rollbacks = 0

    def before_step(self) -> None:
        """Saves the random state, for the diagnosis, and the buffers, which a skipped iteration must not change."""
        self._random_state = get_random_state()
        self._buffers = _clone_buffers(unwrap_ddp(self.trainer.model))

    def allows_backward(self, trainer: Any, error: FloatingPointError | None) -> bool:
        """Returns whether to run the backward pass; called on every process after the forward pass.

        Detectron2's RPN raises in the forward pass if predictions are not finite. If the other processes started the backward pass, they
        would wait for this one forever.

        Args:
            trainer: has model, optimizer, batch, iter and storage.
            error: the exception of the model; None for none.

        Raises:
            Diverged: the run has to end.
        """
        if not self._is_true_anywhere(trainer, error is not None):
            return True
        self._handle(trainer, {}, f"{error}" if error is not None else "another process's model raised")
        return False

    def allows_step(self, trainer: Any, losses: dict[str, Tensor]) -> bool:
        """Returns whether the optimizer may step; called on every process after the backward pass, before gradients are clipped.

        Args:
            trainer: has model, optimizer, batch, iter, storage and, if gradients are scaled, `grad_scaler`.
            losses: scalars by name.

        Raises:
            Diverged: the run has to end.
        """
        values = [value.detach() for value in losses.values()]
        # A gradient scaler skips steps with overflowing gradients itself.
        if getattr(trainer, "grad_scaler", None) is None:
            groups = trainer.optimizer.param_groups
            values += [p.grad for group in groups for p in group["params"] if p.grad is not None]
        if self._is_true_anywhere(trainer, not _are_finite(values)):
            self._handle(trainer, losses, "")
            return False
        self._in_a_row = 0
        if self._on_fault == "rollback":
            if self._good % _SNAPSHOT_PERIOD == 0:
                self._snapshots.append(_Snapshot(unwrap_ddp(trainer.model), trainer.optimizer))
            self._good += 1
        return True

    def _is_true_anywhere(self, trainer: Any, condition: bool) -> bool:
        """Returns whether a condition is true on any process. An all-reduce of one number is cheaper than a gather of objects."""
        if comm.get_world_size() == 1:
            return condition
        flag = torch.tensor(float(condition), device=next(trainer.model.parameters()).device)
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag)

    def _handle(self, trainer: Any, losses: dict[str, Tensor], error: str) -> None:
        summary = self._report(trainer, losses, error)
        logger.error("%s", summary)
        # Running statistics that included the fault would stay non-finite.
        _restore_buffers(unwrap_ddp(trainer.model), self._buffers)
        self._in_a_row += 1
        if self._on_fault == "stop":
            raise Diverged(f"{summary} (train.guard.on_fault=skip or rollback would continue)")
        if self._on_fault == "skip":
            if self._in_a_row > _MAX_SKIPS_IN_A_ROW:
                raise Diverged(f"{self._in_a_row} iterations in a row diverged; the last: {summary}")
            self.skipped += 1
            trainer.storage.put_scalar("divergence/skipped", self.skipped, smoothing_hint=False)
            logger.warning("Skipped a step: %d in this run", self.skipped)
            return
        self._roll_back(trainer, summary)

    def _roll_back(self, trainer: Any, summary: str) -> None:
        if not self._snapshots:
            raise Diverged(f"the first iteration already diverged, so there are no weights to roll back to: {summary}")
        if self.rollbacks == _MAX_ROLLBACKS:
            raise Diverged(f"rolled back {self.rollbacks} times, and training diverged again: {summary}")
        while len(self._snapshots) > 1:
            self._snapshots.pop()
        self._snapshots[0].restore(unwrap_ddp(trainer.model), trainer.optimizer)
        self._good = 1  # the snapshot that was restored counts as the first
        halve_learning_rates(trainer)
        self.rollbacks += 1
        trainer.storage.put_scalar("divergence/rollbacks", self.rollbacks, smoothing_hint=False)
        logger.warning("Rolled back, and halved every learning rate: %d times in this run", self.rollbacks)

    def _report(self, trainer: Any, losses: dict[str, Tensor], error: str) -> str:
        """Writes the report and returns its summary and path in one line."""
        history: list[float] = []
        if "total_loss" in trainer.storage.histories():
            history = [value for value, _ in trainer.storage.history("total_loss").values()[-20:]]
        diverged = diagnose_iteration(
            unwrap_ddp(trainer.model),
            trainer.optimizer,
            list(trainer.batch),
            iteration=trainer.iter,
            losses=losses,
            error=error,
            random_state=self._random_state,
            autocast=getattr(trainer, "autocast", nullcontext),
            history=history,
        )
        if self._reports == _MAX_REPORTS:
            return diverged.summary()
        self._reports += 1
        try:
            report = write_report(diverged, unwrap_ddp(trainer.model), self._folder / f"iter_{trainer.iter:07d}")
        except (OSError, WriteError) as problem:  # a full disk must not hide the divergence
            return f"{diverged.summary()}; the report could not be written ({problem})"
        return f"{diverged.summary()}; see {report}"

    def state_dict(self) -> dict[str, Any]:
        """Returns the counts; {} if no iteration has diverged."""
        return {"skipped": self.skipped, "rollbacks": self.rollbacks} if self.skipped or self.rollbacks else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the counts of :meth:`state_dict`."""
        self.skipped, self.rollbacks = state_dict["skipped"], state_dict["rollbacks"]


def _are_finite(tensors: list[Tensor]) -> bool:
    """Returns whether every value is finite; synchronises with the device once."""
    norms = [norm.float() for norm in tensor_norms(tensors)]
    if bool(torch.stack([norm.to(norms[0].device) for norm in norms]).isfinite().all()):
        return True
    # A sum of squares overflows before its terms do.
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


def halve_learning_rates(trainer: Any) -> None:
    """Halves the learning rate of every parameter group for the rest of the run, also the base rates of the scheduler."""
    for group in trainer.optimizer.param_groups:
        for key in ("lr", "initial_lr"):  # a resumed run builds its scheduler from initial_lr
            if key in group:
                group[key] = group[key] * 0.5
    for hook in registered_hooks(trainer):
        if isinstance(hook, LRScheduler):
            hook.scheduler.base_lrs = [rate * 0.5 for rate in hook.scheduler.base_lrs]


class _Snapshot:
    """A copy of weights, buffers and the optimizer's state on the CPU."""

    def __init__(self, model: nn.Module, optimizer: optim.Optimizer) -> None:
        self._model = _to_cpu(model.state_dict())
        self._state = _to_cpu(optimizer.state_dict()["state"])

    def restore(self, model: nn.Module, optimizer: optim.Optimizer) -> None:
        """Restores everything except the settings of the parameter groups, such as learning rates. Can be called again."""
        model.load_state_dict(self._model)
        groups = optimizer.state_dict()["param_groups"]
        # A copy, because the optimizer keeps these tensors and changes them.
        optimizer.load_state_dict({"state": copy.deepcopy(self._state), "param_groups": groups})


def _to_cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    return {key: _to_cpu(inner) for key, inner in value.items()} if isinstance(value, dict) else value


def _clone_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Returns copies of a model's buffers, such as the running statistics of BatchNorm; frozen ones never change and are left out."""
    return {
        f"{prefix}.{name}" if prefix else name: buffer.detach().clone()
        for prefix, module in model.named_modules()
        if not isinstance(module, FrozenBatchNorm2d)
        for name, buffer in module.named_buffers(recurse=False)
    }


@torch.no_grad()
def _restore_buffers(model: nn.Module, kept: dict[str, Tensor]) -> None:
    """Restores the buffers of :func:`_clone_buffers`."""
    for name, buffer in model.named_buffers():
        if name in kept and kept[name].shape == buffer.shape:
            buffer.copy_(kept[name])
