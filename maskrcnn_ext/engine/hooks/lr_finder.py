"""A short run that tries learning rates from low to high and says which one to train with."""

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

from maskrcnn_ext.errors import InputError

logger = logging.getLogger(__name__)

_SMOOTHING = 0.95
_DIVERGED = 3.0  # how far above the lowest loss, in such losses
_FALL = 1e-3  # share of the loss; less is no fall
_FEWEST = 10  # losses that a curve can be read from


class LRFinder(HookBase):
    """Raises the learning rate exponentially from step to step and watches the loss (L. Smith, arXiv:1506.01186, section 3.3).

    It is to be the trainer's only hook that acts on the optimizer, and its guard, so that a loss that explodes ends the run instead of
    failing it. The weights are spoilt afterwards: nothing is to be saved but what this hook writes, ``lr_finder.png`` and
    ``lr_finder.json``.

    Attributes:
        suggestion: the learning rate to train with, for ``optimizer.lr``; None before the end, or where the loss never fell.
    """

    def __init__(self, *, lowest: float, highest: float, steps: int, output_dir: str) -> None:
        """Prepares the sweep; the run is to have `steps` iterations.

        Args:
            lowest: learning rate of the first step.
            highest: of the last one.
            steps: iterations.
            output_dir: folder of what is written.

        Raises:
            InputError: values that make no sweep.
        """
        if not 0 < lowest < highest < math.inf:
            raise InputError(f"train.lr_finder: expected 0 < lowest < highest, found lowest={lowest} highest={highest}")
        if steps < _FEWEST:
            raise InputError(f"train.lr_finder.steps={steps}: expected {_FEWEST} or more")
        self._rates = np.geomspace(lowest, highest, steps)
        self._folder = Path(output_dir)
        self._ratios: list[float] = []
        self._losses: list[float] = []
        self.suggestion: float | None = None

    def before_train(self) -> None:
        """Notes how the learning rates of the parameter groups relate to that of the optimizer, which the sweep keeps."""
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
        """False, and an end to the run, where a model has raised that its numbers explode. Called on every rank."""
        return not any(comm.all_gather(error is not None)) or self._end(trainer)

    def allows_step(self, trainer: Any, losses: dict[str, Tensor]) -> bool:
        """Takes down the loss of this step; False, and an end to the run, where it has exploded. Called on every rank."""
        total = sum(value.item() for value in losses.values())
        loss = sum(shares := comm.all_gather(total)) / len(shares)
        if not math.isfinite(loss):
            return self._end(trainer)
        self._losses.append(loss)
        curve = smoothed(self._losses)
        lowest = min(curve)
        return len(curve) < _FEWEST or curve[-1] <= lowest + _DIVERGED * abs(lowest) or self._end(trainer)

    def _end(self, trainer: Any) -> bool:
        trainer.stop(f"the loss diverges at a learning rate of {self._rates[trainer.iter - trainer.start_iter]:.2g}")
        return False

    def after_train(self) -> None:
        """Writes the curve and says what to train with."""
        if not comm.is_main_process() or not self._losses:
            return
        curve = smoothed(self._losses)
        rates = self._rates[: len(curve)].tolist()
        found = read_curve(rates, curve)
        if found is not None:
            self.suggestion = float(f"{min(found):.2g}")
        names = ("steepest_descent", "tenth_of_minimum")
        marks = dict(zip(names, found or (None, None), strict=True))
        record = {"lr": rates, "loss": self._losses, "smoothed": curve, **marks, "suggestion": self.suggestion}
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / "lr_finder.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
        _plot(self._folder / "lr_finder.png", rates, self._losses, curve, marks)
        if found is None:
            logger.info("No learning rate to suggest: the loss never fell. See %s", self._folder / "lr_finder.png")
            return
        logger.info(
            "The loss falls fastest at a learning rate of %.2g, a tenth of that of the lowest loss is %.2g; see %s. Train with "
            "train.lr_finder.enabled=false optimizer.lr=%.2g",
            *found,
            self._folder / "lr_finder.png",
            self.suggestion,
        )


def smoothed(losses: list[float]) -> list[float]:
    """Returns the exponential moving average of losses, without the bias towards its start."""
    average, curve = 0.0, []
    for count, loss in enumerate(losses, 1):
        average = _SMOOTHING * average + (1 - _SMOOTHING) * loss
        curve.append(average / (1 - _SMOOTHING**count))
    return curve


def read_curve(rates: list[float], curve: list[float]) -> tuple[float, float] | None:
    """Returns where a smoothed loss falls fastest over the logarithm of the rate, and a tenth of where it is lowest.

    None where it does not fall, or has too few points.
    """
    if len(curve) < _FEWEST:
        return None
    lowest = int(np.argmin(curve))
    slopes = np.gradient(np.array(curve), np.log(np.array(rates)))
    # The average of the first few losses is noise; beyond the minimum it rises.
    start = len(curve) // 10
    if lowest <= start or curve[start] - curve[lowest] < _FALL * abs(curve[start]):
        return None
    steepest = start + int(np.argmin(slopes[start : lowest + 1]))
    return rates[steepest], rates[lowest] / 10


def _plot(
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
    # One last loss that explodes would flatten all the rest.
    low, high = min(curve), max(curve[: int(np.argmin(curve)) + 1])
    margin = 0.5 * (high - low) or 1.0
    axes.set_ylim(low - margin, high + margin)
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("total loss")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(file, dpi=110)
