"""The best weights of a run, kept as ``model_best``."""

from __future__ import annotations

import logging
from typing import Any

from detectron2.checkpoint import DetectionCheckpointer

from maskrcnn_ext.common.distributed import decide_on_main
from maskrcnn_ext.engine.hooks.metric import check_mode, is_better, read_metric
from maskrcnn_ext.engine.hooks.schedule import EvaluationHook, last_iteration

logger = logging.getLogger(__name__)


class Best(EvaluationHook):
    """Saves ``model_best`` whenever a metric is better than ever before in the run.

    Detectron2's BestCheckpointer forgets the best value when a run resumes, and overwrites better weights by worse. This one has it in the
    checkpoint.
    """

    def __init__(self, period: int, checkpointer: DetectionCheckpointer, *, metric: str, mode: str = "max") -> None:
        """Stands after the hooks that evaluate.

        Args:
            period: ``train.eval_period``.
            checkpointer: has the model; writes on the main process only.
            metric: name of a scalar, such as "segm/AP" or "validation_loss/total_loss".
            mode: "max" where more is better, "min" where less is.

        Raises:
            InputError: another mode.
        """
        check_mode("train.best.mode", mode)
        super().__init__(period)
        self._checkpointer = checkpointer
        self._metric, self._mode = metric, mode
        self.value: float | None = None
        self.iteration: int | None = None

    def at_evaluation(self) -> None:
        """Compares and saves.

        Raises:
            InputError: the evaluation gives no such metric, or the file cannot be written.
        """
        value = decide_on_main(lambda: read_metric(self.trainer, self._metric, "train.best.metric"))
        if not is_better(value, self.value, self._mode):
            if self.value is not None:
                what = f"{self._metric} {value:.5g} is no better than {self.value:.5g} after iteration {self.iteration}"
                logger.info("%s: model_best stays", what)
            return
        before = "" if self.value is None else f", better than {self.value:.5g} after iteration {self.iteration}"
        # First the state, which goes into the file.
        self.value, self.iteration = value, last_iteration(self.trainer)
        logger.info("%s %.5g%s: saving model_best", self._metric, value, before)
        decide_on_main(lambda: self._checkpointer.save("model_best", iteration=self.iteration))

    def state_dict(self) -> dict[str, Any]:
        """Returns the best value and its iteration; {} before the first one."""
        if self.value is None:
            return {}
        return {"metric": self._metric, "mode": self._mode, "value": self.value, "iteration": self.iteration}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a checkpoint; the best value of another metric does not count."""
        if (state["metric"], state["mode"]) != (self._metric, self._mode):
            logger.warning("The best %s so far is dropped: train.best.metric is %s now", state["metric"], self._metric)
            return
        self.value, self.iteration = state["value"], state["iteration"]
