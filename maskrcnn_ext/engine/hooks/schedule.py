"""When evaluations are due: at the same iterations as those of Detectron2's EvalHook."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from detectron2.engine import HookBase


def is_evaluation(trainer: Any, period: int) -> bool:
    """Whether an evaluation is due after the iteration that has just run; that after the last one belongs to ``after_train``.

    Args:
        trainer: of Detectron2, in ``after_step``.
        period: ``train.eval_period``; 0 for none before the end.
    """
    next_iter = trainer.iter + 1
    return period > 0 and next_iter % period == 0 and next_iter != trainer.max_iter


def is_finished(trainer: Any) -> bool:
    """Whether training has come to its end, rather than been stopped or failed; for ``after_train``."""
    # Detectron2's own trainers cannot be stopped.
    return bool(trainer.iter + 1 >= trainer.max_iter and not getattr(trainer, "stop_reason", None))


def last_iteration(trainer: Any) -> int:
    """Returns the last iteration that ran: in ``after_train`` of a run that came to its end, ``trainer.iter`` is one more."""
    return min(trainer.iter, trainer.max_iter - 1)


class EvaluationHook(HookBase, ABC):
    """A hook that works at every evaluation: every `period` iterations, and after the last one."""

    def __init__(self, period: int) -> None:
        """Takes ``train.eval_period``."""
        self._period = period

    @abstractmethod
    def at_evaluation(self) -> None:
        """The work; called on every rank alike. Doing it once more after the same iteration changes nothing."""

    def after_step(self) -> None:
        if is_evaluation(self.trainer, self._period):
            self.at_evaluation()

    def after_train(self) -> None:
        if is_finished(self.trainer):
            self.at_evaluation()
