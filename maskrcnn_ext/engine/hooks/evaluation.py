"""The evaluation of the model, and where its results go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm

from maskrcnn_ext.engine.hooks.schedule import EvaluationHook


class Evaluation(EvaluationHook):
    """Detectron2's EvalHook: puts every number of the results into the storage, ``{"segm": {"AP": ...}}`` as ``segm/AP``."""

    def __init__(self, period: int, evaluate: Callable[[], dict[str, Any]]) -> None:
        """Takes ``train.eval_period``, and what gives the results on the main process and {} on the others."""
        super().__init__(period)
        self._evaluate = evaluate

    def at_evaluation(self) -> None:
        """Evaluates, on all processes together."""
        results = flatten_results_dict(self._evaluate())
        self.trainer.storage.put_scalars(
            **{name: float(value) for name, value in results.items()}, smoothing_hint=False
        )
        comm.synchronize()  # what comes next begins in all processes alike
