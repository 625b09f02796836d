"""An end to a run that gets no better."""

from __future__ import annotations

import logging
from typing import Any

from maskrcnn_ext.common.distributed import decide_on_main
from maskrcnn_ext.engine.hooks.metric import check_mode, is_better, read_metric
from maskrcnn_ext.engine.hooks.schedule import EvaluationHook, is_finished, last_iteration
from maskrcnn_ext.errors import InputError

logger = logging.getLogger(__name__)


class EarlyStopping(EvaluationHook):
    """Stops the training after `patience` evaluations in a row without a better metric; how many there were survives a resume."""

    def __init__(
        self, period: int, *, metric: str, mode: str = "max", patience: int = 5, min_delta: float = 0.0
    ) -> None:
        """Stands after the hooks that evaluate.

        Args:
            period: ``train.eval_period``.
            metric: name of a scalar, such as "segm/AP" or "validation_loss/total_loss".
            mode: "max" where more is better, "min" where less is.
            patience: evaluations.
            min_delta: by how much a value has to beat the best one, in the metric's units.

        Raises:
            InputError: another mode, no patience, or a negative `min_delta`.
        """
        check_mode("train.early_stopping.mode", mode)
        if patience < 1:
            raise InputError(f"train.early_stopping.patience={patience}: expected 1 or more evaluations")
        if not min_delta >= 0:
            raise InputError(f"train.early_stopping.min_delta={min_delta}: expected 0 or more")
        super().__init__(period)
        self._metric, self._mode, self._patience, self._min_delta = metric, mode, patience, min_delta
        self.best: float | None = None
        self.waited = 0
        self._counted = -1  # the last iteration whose evaluation counts

    def at_evaluation(self) -> None:
        """Counts this evaluation, unless it has been counted before the run was resumed, and stops the training.

        Raises:
            InputError: the evaluation gives no such metric.
        """
        value = decide_on_main(lambda: read_metric(self.trainer, self._metric, "train.early_stopping.metric"))
        now = last_iteration(self.trainer)
        if now > self._counted:
            self._counted = now
            if is_better(value, self.best, self._mode, self._min_delta):
                self.best, self.waited = value, 0
            else:
                self.waited += 1
        if self.waited >= self._patience and not is_finished(self.trainer):
            best = "any value" if self.best is None else f"{self.best:.5g}"
            self.trainer.stop(
                f"{self._metric} is no better than {best} for {self.waited} evaluations (train.early_stopping.patience)"
            )

    def state_dict(self) -> dict[str, Any]:
        """Returns the best value and the count; {} before the first evaluation."""
        if self._counted < 0:
            return {}
        counts = {"best": self.best, "waited": self.waited, "counted": self._counted}
        return {"metric": self._metric, "mode": self._mode, **counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a checkpoint; what was counted of another metric does not count."""
        if (state["metric"], state["mode"]) != (self._metric, self._mode):
            logger.warning("Counting anew: train.early_stopping.metric is %s, it was %s", self._metric, state["metric"])
            return
        self.best, self.waited, self._counted = state["best"], state["waited"], state["counted"]
