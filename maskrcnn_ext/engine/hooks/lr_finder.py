"""Finds a learning rate: a short run with increasing rates, whose losses suggest the rate to train with."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import Tensor

from maskrcnn_ext.common.files import atomic_path, write_atomic
from maskrcnn_ext.errors import InputError

logger = logging.getLogger(__name__)

_SMOOTHING = 0.95
_DIVERGED = 3.0  # the run ends if the loss exceeds its minimum by this many minima
_MIN_FALL = 1e-3  # smallest fall of the loss that counts, as a share of the loss
_MIN_LOSSES = 10  # fewest losses for a suggestion


class LRFinder(HookBase):
    """Increases the learning rate exponentially from step to step and records the loss (L. Smith, arXiv:1506.01186, section 3.3).

    Register it as the only hook that acts on the optimizer, and as the trainer's guard, so that a diverging loss ends the run without an
    error. The weights cannot be used afterwards; the results are ``lr_finder.png`` and ``lr_finder.json``.

    Attributes:
        suggestion: the learning rate to train with, for ``optimizer.lr``; None before the end, or if the loss never fell.

    Example::

        train.lr_finder.enabled=true
    """

    def __init__(self, *, lowest: float, highest: float, steps: int, output_dir: str) -> None:
        """Prepares the sweep.

        Args:
            lowest: learning rate of the first step.
            highest: learning rate of the last step.
            steps: number of iterations of the run.
            output_dir: folder for the results.

        Raises:
            InputError: the rates are not increasing, or there are too few steps.
        """
        if not 0 < lowest < highest < math.inf:
            raise InputError(f"train.lr_finder: expected 0 < lowest < highest, found lowest={lowest} highest={highest}")
        if steps < _MIN_LOSSES:
            raise InputError(f"train.lr_finder.steps={steps}: expected {_MIN_LOSSES} or more")
        self._rates = np.geomspace(lowest, highest, steps)
        self._folder = Path(output_dir)
        self._ratios: list[float] = []
        self._losses: list[float] = []
        self.suggestion: float | None = None

    def before_train(self) -> None:
        """Stores the ratio of each parameter group's learning rate to the optimizer's; the sweep keeps these ratios."""
        optimizer = self.trainer.optimizer
        base = optimizer.defaults["lr"]
        self._ratios = [group["lr"] / base if base else 1.0 for group in optimizer.param_groups]

    def before_step(self) -> None:
        """Sets this step's learning rate."""
        rate = float(self._rates[self.trainer.iter - self.trainer.start_iter])
        for group, ratio in zip(self.trainer.optimizer.param_groups, self._ratios, strict=True):
            group["lr"] = rate * ratio
        if comm.is_main_process():
            self.trainer.storage.put_scalar("lr", rate, smoothing_hint=False)

    def allows_backward(self, trainer: Any, error: FloatingPointError | None) -> bool:
        """Returns False and stops the run if the model of any rank raised because of non-finite values."""
        return not any(comm.all_gather(error is not None)) or self._end(trainer)

    def allows_step(self, trainer: Any, losses: dict[str, Tensor]) -> bool:
        """Records the loss of this step; returns False and stops the run if it has diverged. Called on every rank."""
        total = sum(value.item() for value in losses.values())
        loss = sum(shares := comm.all_gather(total)) / len(shares)
        if not math.isfinite(loss):
            return self._end(trainer)
        self._losses.append(loss)
        curve = smooth(self._losses)
        lowest = min(curve)
        return len(curve) < _MIN_LOSSES or curve[-1] <= lowest + _DIVERGED * abs(lowest) or self._end(trainer)

    def _end(self, trainer: Any) -> bool:
        trainer.stop(f"the loss diverges at a learning rate of {self._rates[trainer.iter - trainer.start_iter]:.2g}")
        return False

    def after_train(self) -> None:
        """Writes the results and logs the suggestion."""
        if not comm.is_main_process() or not self._losses:
            return
        curve = smooth(self._losses)
        rates = self._rates[: len(curve)].tolist()
        found = find_rates(rates, curve)
        if found is not None:
            self.suggestion = float(f"{min(found):.2g}")
        names = ("steepest_descent", "tenth_of_minimum")
        marks = dict(zip(names, found or (None, None), strict=True))
        record = {"lr": rates, "loss": self._losses, "smoothed": curve, **marks, "suggestion": self.suggestion}
        write_atomic(self._folder / "lr_finder.json", json.dumps(record, indent=1))
        _write_plot(self._folder / "lr_finder.png", rates, self._losses, curve, marks)
        if found is None:
            logger.info(
                "No suggestion for the learning rate: the loss never fell. See %s", self._folder / "lr_finder.png"
            )
            return
        logger.info(
            "The loss falls fastest at a learning rate of %.2g; a tenth of the rate with the lowest loss is %.2g; see %s. Train with "
            "train.lr_finder.enabled=false optimizer.lr=%.2g",
            *found,
            self._folder / "lr_finder.png",
            self.suggestion,
        )


def smooth(losses: list[float]) -> list[float]:
    """Returns the exponential moving average of losses, corrected for its bias towards zero.

    Example:
        >>> [round(value, 6) for value in smooth([2.0, 2.0, 2.0])]
        [2.0, 2.0, 2.0]
    """
    average, curve = 0.0, []
    for count, loss in enumerate(losses, 1):
        average = _SMOOTHING * average + (1 - _SMOOTHING) * loss
        curve.append(average / (1 - _SMOOTHING**count))
    return curve


def find_rates(rates: list[float], curve: list[float]) -> tuple[float, float] | None:
    """Returns the rate at which a smoothed loss falls fastest, and a tenth of the rate with the lowest loss.

    Args:
        rates: learning rates in ascending order.
        curve: smoothed loss at each rate.

    Returns:
        Two rates; None if the loss does not fall, or if there are too few points.
    """
    if len(curve) < _MIN_LOSSES:
        return None
    lowest = int(np.argmin(curve))
    slopes = np.gradient(np.array(curve), np.log(np.array(rates)))
    # The average of the first few losses is noisy, and the loss rises after its minimum.
    start = len(curve) // 10
    if lowest <= start or curve[start] - curve[lowest] < _MIN_FALL * abs(curve[start]):
        return None
    steepest = start + int(np.argmin(slopes[start : lowest + 1]))
    return rates[steepest], rates[lowest] / 10


def _write_plot(
    file: Path, rates: list[float], losses: list[float], curve: list[float], marks: dict[str, float | None]
) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(rates, losses, color="#b0b0b0", linewidth=1, label="loss")
    axes.plot(rates, curve, linewidth=1.8, label="smoothed")
    for (name, rate), color in zip(marks.items(), ("#2a9d4a", "#d1603d"), strict=True):
        if rate is not None:
            axes.axvline(
                rate, color=color, linestyle="--", linewidth=1.2, label=f"{name.replace('_', ' ')}: {rate:.2g}"
            )
    # A diverging last loss would compress the rest of the curve.
    low, high = min(curve), max(curve[: int(np.argmin(curve)) + 1])
    margin = 0.5 * (high - low) or 1.0
    axes.set_ylim(low - margin, high + margin)
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("total loss")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8)
    with atomic_path(file) as partial:
        figure.savefig(partial, dpi=110)
