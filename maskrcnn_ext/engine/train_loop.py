"""Detectron2's training loop with mixed precision, gradient accumulation, gradient clipping, a guard and early stops."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils.events import EventStorage
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from maskrcnn_ext.compat import let_scaler_skip_steps
from maskrcnn_ext.errors import InputError

logger = logging.getLogger(__name__)


class Guard(Protocol):
    """Checks every step before the weights change. Its methods are called on every rank."""

    def allows_backward(self, trainer: Trainer, error: FloatingPointError | None) -> bool:
        """Returns whether to run the backward pass; `error` is the exception of the forward pass."""

    def allows_step(self, trainer: Trainer, losses: dict[str, Tensor]) -> bool:
        """Returns whether the optimizer may step, after the backward pass."""


class Trainer(SimpleTrainer):
    """Combines Detectron2's SimpleTrainer and AMPTrainer, with the same numbers, and adds accumulation, clipping, a guard and stops.

    Attributes:
        grad_scaler: scales the gradients of float16; None in any other precision.
        batch: the inputs that the present iteration has used so far on this rank.
        stop_reason: why the loop ended before its last iteration; None if it did not.

    Example::

        trainer = Trainer(model, loader, optimizer, amp=torch.bfloat16, accumulate=2)
        trainer.train(0, 1000)
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Any,
        optimizer: torch.optim.Optimizer,
        *,
        amp: torch.dtype | None = None,
        accumulate: int = 1,
        clip_grad: float | None = None,
        guard: Guard | None = None,
        explain_error: Callable[[Exception], InputError | None] = lambda _: None,
    ) -> None:
        """Prepares training.

        Args:
            model: takes a batch and returns a dict of losses; with several processes, wrapped in DistributedDataParallel.
            data_loader: an iterable over lists of inputs.
            optimizer: the optimizer of the model's parameters.
            amp: dtype of mixed precision, torch.float16 (with a gradient scaler, as in Detectron2) or torch.bfloat16; None for full
                precision.
            accumulate: number of batches whose mean gradient makes one step.
            clip_grad: largest norm of all gradients together; None for no limit.
            guard: decides about every step.
            explain_error: returns an error to raise instead of one that ended training; None to raise that one.
        """
        super().__init__(model, data_loader, optimizer)
        self._device = next(model.parameters()).device.type
        self._amp = amp
        self._accumulate = accumulate
        self._clip_grad = clip_grad
        self._guard = guard
        self._explain_error = explain_error
        self.grad_scaler = torch.amp.GradScaler(self._device) if amp == torch.float16 else None
        self.batch: list[dict[str, Any]] = []
        self.stop_reason: str | None = None

    def autocast(self) -> AbstractContextManager[None]:
        """Returns the context in which the model computes its losses."""
        return nullcontext() if self._amp is None else torch.autocast(self._device, self._amp)

    def stop(self, reason: str) -> None:
        """Ends training after the present iteration. Call this on every rank."""
        self.stop_reason = reason
        logger.info("Training stops after iteration %d: %s", self.iter, reason)

    def train(self, start_iter: int, max_iter: int) -> None:
        """Runs the iterations from `start_iter` to `max_iter` (exclusive), or until :meth:`stop`.

        Afterwards ``iter`` is the last iteration that ran if training was stopped, and `max_iter` if it was not.
        """
        logger.info("Starting training from iteration %d", start_iter)
        self.iter = self.start_iter = start_iter
        self.max_iter = max_iter
        with EventStorage(start_iter) as self.storage:
            try:
                self.before_train()
                for self.iter in range(start_iter, max_iter):
                    self.before_step()
                    self.run_step()
                    self.after_step()
                    if self.stop_reason:
                        break
                else:
                    self.iter += 1  # as in Detectron2, iter is max_iter after a complete run
            except InputError:
                raise
            except Exception as error:
                known = self._explain_error(error)
                if known is not None:
                    raise known from error
                logger.exception("Exception during training:")
                raise
            finally:
                self.after_train()

    def after_train(self) -> None:
        """Ends the hooks. They see the iteration after the last one, also if training was stopped."""
        last = self.iter
        if self.stop_reason:
            self.iter += 1
        super().after_train()
        self.iter = last

    def run_step(self) -> None:
        """Runs one iteration: one step of the optimizer, unless the guard refuses it."""
        losses: dict[str, Tensor] = {}
        data_time = 0.0
        for part in range(self._accumulate):
            start = time.perf_counter()
            batch = next(self._data_loader_iter)
            data_time += time.perf_counter() - start
            self.batch = batch if part == 0 else [*self.batch, *batch]
            # Processes average their gradients once per step, in the last backward pass.
            skips_sync = isinstance(self.model, DistributedDataParallel) and part < self._accumulate - 1
            with self.model.no_sync() if skips_sync else nullcontext():
                part_losses = self._compute_losses(batch)
                if part_losses is None:
                    return
                if part == 0:
                    self.optimizer.zero_grad()
                loss = sum(part_losses.values())
                (loss if self.grad_scaler is None else self.grad_scaler.scale(loss)).backward()
            losses = {name: losses[name] + value if name in losses else value for name, value in part_losses.items()}
        if self._guard is not None and not self._guard.allows_step(self, losses):
            return
        self._write_metrics(losses, data_time)
        self._step_optimizer()

    def _compute_losses(self, batch: list[dict[str, Any]]) -> dict[str, Tensor] | None:
        """Returns the losses of a batch divided by the number of batches per step; None if the guard skips the iteration."""
        error = None
        losses: Any = {}
        try:
            with self.autocast():
                losses = self.model(batch)
        except FloatingPointError as raised:
            error = raised
        if self._guard is not None and not self._guard.allows_backward(self, error):
            return None
        if error is not None:
            raise error
        if isinstance(losses, Tensor):
            losses = {"total_loss": losses}
        if self._accumulate > 1:
            losses = {name: value / self._accumulate for name, value in losses.items()}
        return losses

    def _step_optimizer(self) -> None:
        scaler = self.grad_scaler
        if self._clip_grad is not None:
            if scaler is not None:
                scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(
                [p for group in self.optimizer.param_groups for p in group["params"]], self._clip_grad
            )
        if scaler is None:
            self.optimizer.step()
        else:
            if isinstance(self.optimizer, torch.optim.SGD):
                # A fused SGD that skips the first step itself would start from uninitialised momentum.
                let_scaler_skip_steps(self.optimizer)
            scaler.step(self.optimizer)
            scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """Returns Detectron2's state: iteration, hooks, optimizer and the gradient scaler, if there is one."""
        state: dict[str, Any] = super().state_dict()
        if self.grad_scaler is not None:
            state["grad_scaler"] = self.grad_scaler.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores a state of :meth:`state_dict` or of Detectron2's trainers."""
        super().load_state_dict(state_dict)
        if self.grad_scaler is not None and "grad_scaler" in state_dict:
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
