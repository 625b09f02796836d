"""Hooks that act on one metric of the evaluations: keeping the best weights, and stopping when they no longer improve."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from detectron2.checkpoint import DetectionCheckpointer

from maskrcnn_ext.common.distributed import decide_on_main
from maskrcnn_ext.common.text import did_you_mean, plural
from maskrcnn_ext.engine.hooks.evaluation import EvaluationHook, is_finished, last_iteration
from maskrcnn_ext.errors import InputError

logger = logging.getLogger(__name__)


class Best(EvaluationHook):
    """Saves ``model_best`` whenever a metric exceeds its best value of the whole run.

    Detectron2's BestCheckpointer forgets the best value when a run is resumed, and then overwrites better weights with worse ones. This
    hook stores the value in the checkpoint.

    Example::

        train.best.metric=segm/AP
    """

    def __init__(
        self,
        period: int,
        checkpointer: DetectionCheckpointer,
        *,
        metric: str,
        mode: str = "max",
        weights: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Prepares; register this hook after the hooks that evaluate.

        Args:
            period: ``train.eval_period``.
            checkpointer: saves the model, on the main process only.
            metric: name of a scalar, such as "segm/AP" or "validation_loss/total_loss".
            mode: "max" if a higher value is better, "min" if a lower one is.
            weights: returns a context in which the model has the weights that the metric is of, such as those of EMA.

        Raises:
            InputError: `mode` is neither.
        """
        _check_mode("train.best.mode", mode)
        super().__init__(period)
        self._checkpointer, self._weights = checkpointer, weights
        self._metric, self._mode = metric, mode
        self.value: float | None = None
        self.iteration: int | None = None

    def at_evaluation(self) -> None:
        """Compares the metric with the best value so far, and saves the model if it is better.

        Raises:
            InputError: the evaluation has no such metric, or the file cannot be written.
        """
        value = decide_on_main(lambda: read_metric(self.trainer, self._metric, "train.best.metric"))
        if not is_better(value, self.value, self._mode):
            if self.value is not None:
                comparison = f"{self.value:.5g} after iteration {self.iteration}"
                logger.info("%s %.5g is no better than %s: model_best is kept", self._metric, value, comparison)
            return
        before = "" if self.value is None else f", better than {self.value:.5g} after iteration {self.iteration}"
        # Set first, because the file contains the state of this hook.
        self.value, self.iteration = value, last_iteration(self.trainer)
        logger.info("%s %.5g%s: saving model_best", self._metric, value, before)
        with self._weights():
            decide_on_main(lambda: self._checkpointer.save("model_best", iteration=self.iteration))

    def state_dict(self) -> dict[str, Any]:
        """Returns the best value and its iteration; {} before the first one."""
        if self.value is None:
            return {}
        return {"metric": self._metric, "mode": self._mode, "value": self.value, "iteration": self.iteration}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the best value; a value of another metric is dropped."""
        if (state["metric"], state["mode"]) != (self._metric, self._mode):
            logger.warning("The best %s so far is dropped: train.best.metric is %s now", state["metric"], self._metric)
            return
        self.value, self.iteration = state["value"], state["iteration"]


class EarlyStopping(EvaluationHook):
    """Stops training after `patience` evaluations in a row without a better metric. The count is stored in the checkpoint.

    Example::

        train.early_stopping.metric=segm/AP train.early_stopping.patience=3
    """

    def __init__(
        self, period: int, *, metric: str, mode: str = "max", patience: int = 5, min_delta: float = 0.0
    ) -> None:
        """Prepares; register this hook after the hooks that evaluate.

        Args:
            period: ``train.eval_period``.
            metric: name of a scalar, such as "segm/AP" or "validation_loss/total_loss".
            mode: "max" if a higher value is better, "min" if a lower one is.
            patience: number of evaluations.
            min_delta: smallest improvement that counts, in the metric's units.

        Raises:
            InputError: `mode`, `patience` or `min_delta` is invalid.
        """
        _check_mode("train.early_stopping.mode", mode)
        if patience < 1:
            raise InputError(f"train.early_stopping.patience={patience}: expected 1 or more evaluations")
        if not min_delta >= 0:
            raise InputError(f"train.early_stopping.min_delta={min_delta}: expected 0 or more")
        super().__init__(period)
        self._metric, self._mode, self._patience, self._min_delta = metric, mode, patience, min_delta
        self.best: float | None = None
        self.waited = 0
        self._counted = -1  # the last iteration whose evaluation was counted

    def at_evaluation(self) -> None:
        """Counts this evaluation, unless it was counted before the run was resumed, and stops the training if it is time.

        Raises:
            InputError: the evaluation has no such metric.
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
                f"{self._metric} is no better than {best} for {plural(self.waited, 'evaluation')} (train.early_stopping.patience)"
            )

    def state_dict(self) -> dict[str, Any]:
        """Returns the best value and the count; {} before the first evaluation."""
        if self._counted < 0:
            return {}
        counts = {"best": self.best, "waited": self.waited, "counted": self._counted}
        return {"metric": self._metric, "mode": self._mode, **counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the count; a count of another metric is dropped."""
        if (state["metric"], state["mode"]) != (self._metric, self._mode):
            logger.warning(
                "The count starts again: train.early_stopping.metric is %s, it was %s", self._metric, state["metric"]
            )
            return
        self.best, self.waited, self._counted = state["best"], state["waited"], state["counted"]


def _check_mode(key: str, mode: str) -> None:
    if mode not in ("max", "min"):
        raise InputError(f"{key}={mode}: expected max or min")


def is_better(value: float, best: float | None, mode: str, min_delta: float = 0.0) -> bool:
    """Returns whether a value improves on the best one by more than `min_delta`. A value that is not finite never does.

    Args:
        value: the new value.
        best: the best value so far; None before the first.
        mode: "max" or "min".
        min_delta: smallest improvement that counts.

    Example:
        >>> is_better(36.2, 36.1, "max"), is_better(36.2, 36.1, "max", min_delta=0.5)
        (True, False)
    """
    if not math.isfinite(value):
        return False
    if best is None:
        return True
    return value > best + min_delta if mode == "max" else value < best - min_delta


def read_metric(trainer: Any, metric: str, key: str) -> float:
    """Returns the value of a metric at this evaluation; NaN if the evaluation could not compute it.

    Args:
        trainer: its storage has the results; call this on the main process.
        metric: name of the scalar, such as "segm/AP".
        key: config key that names the metric, for the error message.

    Raises:
        InputError: no evaluation has returned such a metric.
    """
    latest: dict[str, tuple[float, int]] = trainer.storage.latest()
    now = last_iteration(trainer)
    fresh = {name: value for name, (value, iteration) in latest.items() if iteration >= now}
    if metric in fresh:
        return fresh[metric]
    # Without a single detection, Detectron2's evaluator returns bbox/AP as NaN and no segm/AP.
    model, _, name = _split_metric(metric)
    others = [value for other, value in fresh.items() if other != metric and _split_metric(other)[::2] == (model, name)]
    found_nothing = "/" in metric and bool(others) and all(math.isnan(value) for value in others)
    if metric not in latest and not found_nothing:
        advice = did_you_mean(metric, latest, cutoff=0.4) or f"it has {', '.join(sorted(latest)) or 'no metrics'}"
        raise InputError(f"{key}={metric}: the evaluation has no such metric; {advice}")
    logger.warning(
        "The evaluation after iteration %d has no %s: early in a training, nothing may be detected", now, metric
    )
    return math.nan


def _split_metric(metric: str) -> tuple[str, str, str]:
    """Returns model, task and name of a metric: ("ema", "segm", "AP") of "ema/segm/AP", ("", "segm", "AP") of "segm/AP"."""
    *model, task, name = ("", *metric.split("/"))[-3:] if "/" in metric else ("", "", metric)
    return "/".join(model), task, name
