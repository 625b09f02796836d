"""Evaluation during training: when it is due, the base of the hooks that run then, and those that evaluate and write the results."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from detectron2.engine import HookBase
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from detectron2.utils.events import EventWriter


def is_evaluation_due(trainer: Any, period: int) -> bool:
    """Returns whether an evaluation is due after the iteration that has just run, at the same iterations as Detectron2's EvalHook.

    The evaluation after the last iteration belongs to ``after_train``.

    Args:
        trainer: Detectron2's, in ``after_step``.
        period: ``train.eval_period``; 0 for no evaluation before the end.
    """
    next_iter = trainer.iter + 1
    return period > 0 and next_iter % period == 0 and next_iter != trainer.max_iter


def is_finished(trainer: Any) -> bool:
    """Returns whether training has run all iterations, instead of being stopped or failing; for ``after_train``."""
    # Detectron2's own trainers have no stop_reason.
    return bool(trainer.iter + 1 >= trainer.max_iter and not getattr(trainer, "stop_reason", None))


def last_iteration(trainer: Any) -> int:
    """Returns the last iteration that ran; in ``after_train`` of a complete run, ``trainer.iter`` is one more."""
    return min(trainer.iter, trainer.max_iter - 1)


class EvaluationHook(HookBase, ABC):
    """Base of the hooks that run at every evaluation: every `period` iterations, and after the last one."""

    def __init__(self, period: int) -> None:
        """Sets the period, ``train.eval_period``; 0 for the end of training only."""
        self._period = period

    @abstractmethod
    def at_evaluation(self) -> None:
        """Runs on every rank. Running twice after the same iteration must have no further effect."""

    def after_step(self) -> None:
        if is_evaluation_due(self.trainer, self._period):
            self.at_evaluation()

    def after_train(self) -> None:
        if is_finished(self.trainer):
            self.at_evaluation()


class Evaluation(EvaluationHook):
    """Evaluates the model and writes the results as scalars, ``{"segm": {"AP": ...}}`` as ``segm/AP``, like Detectron2's EvalHook."""

    def __init__(self, period: int, evaluate: Callable[[], dict[str, Any]]) -> None:
        """Prepares.

        Args:
            period: ``train.eval_period``.
            evaluate: returns the results on the main process, and {} on the others.
        """
        super().__init__(period)
        self._evaluate = evaluate

    def at_evaluation(self) -> None:
        """Evaluates, on all processes together."""
        results = flatten_results_dict(self._evaluate())
        self.trainer.storage.put_scalars(
            **{name: float(value) for name, value in results.items()}, smoothing_hint=False
        )
        comm.synchronize()  # so that all processes start the next step together


class EvaluationWriter(EvaluationHook):
    """Writes the results of every evaluation. Writers see the latest values only, and would lose those between two of their periods."""

    def __init__(self, period: int, writers: Sequence[EventWriter]) -> None:
        """Prepares.

        Args:
            period: ``train.eval_period``.
            writers: to files and trackers. Another hook closes them.
        """
        super().__init__(period)
        self._writers = writers

    def at_evaluation(self) -> None:
        """Writes what is new since the last time."""
        for writer in self._writers:
            writer.write()
