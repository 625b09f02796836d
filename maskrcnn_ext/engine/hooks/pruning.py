"""Ends a trial of a tuning that is worse than most trials were at the same point of their training."""

from __future__ import annotations

import math
from typing import Any

from maskrcnn_ext.common.distributed import decide_on_main
from maskrcnn_ext.common.extras import require
from maskrcnn_ext.engine.hooks.evaluation import EvaluationHook, is_finished, last_iteration
from maskrcnn_ext.engine.hooks.model_selection import read_metric

STUDY = "tune"
POINTS = 10  # of a training, at which trials are compared
_FEWEST_TRIALS = 4  # finished trials, before which none is ended


def point_of(iteration: int, max_iter: int) -> int:
    """Returns the tenth of the training after which an evaluation ran, so that trials of several lengths are comparable.

    Example:
        >>> point_of(iteration=499, max_iter=1000)
        5
    """
    return POINTS * min(iteration + 1, max_iter) // max_iter


class Pruning(EvaluationHook):
    """Stops the training if its best metric so far is below the median of the finished trials at this point.

    The values of the evaluations are stored in the checkpoint, so that a resumed trial is judged by all of them.
    """

    def __init__(self, period: int, *, storage: str, metric: str) -> None:
        """Prepares; register this hook after those that evaluate.

        Args:
            period: ``train.eval_period``.
            storage: address of the study's database, such as "sqlite:////runs/study.db".
            metric: name of a scalar, such as "segm/AP"; a higher value is better.
        """
        super().__init__(period)
        self._storage, self._metric = storage, metric
        self.values: dict[int, float] = {}

    def at_evaluation(self) -> None:
        """Stores the value of this evaluation, and stops the training if it is time.

        Raises:
            InputError: the evaluation has no such metric, or optuna is missing.
        """
        now = point_of(last_iteration(self.trainer), self.trainer.max_iter)
        value = decide_on_main(lambda: read_metric(self.trainer, self._metric, "train.best.metric"))
        self.values[now] = value if math.isfinite(value) else 0.0  # nothing was detected
        if decide_on_main(self._is_worse) and not is_finished(self.trainer):
            self.trainer.stop("most trials were better at this point")

    def _is_worse(self) -> bool:
        optuna = require("optuna", extra="tune", purpose="tuning")
        study = optuna.load_study(study_name=STUDY, storage=self._storage)
        state = optuna.trial.TrialState.RUNNING
        trial = optuna.trial.create_trial(state=state, intermediate_values=self.values)
        return bool(optuna.pruners.MedianPruner(_FEWEST_TRIALS).prune(study, trial))

    def state_dict(self) -> dict[str, Any]:
        """Returns the values; {} before the first evaluation."""
        return {"values": self.values} if self.values else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the values."""
        self.values = dict(state["values"])
