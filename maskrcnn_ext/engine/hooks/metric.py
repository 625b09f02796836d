"""The metric that a run is judged by, as the evaluation of this iteration has put it into the storage."""

from __future__ import annotations

import difflib
import logging
import math
from typing import Any

from maskrcnn_ext.engine.hooks.schedule import last_iteration
from maskrcnn_ext.errors import InputError

logger = logging.getLogger(__name__)


def check_mode(key: str, mode: str) -> None:
    """Raises InputError where `mode`, the value of a key, is neither "max" nor "min"."""
    if mode not in ("max", "min"):
        raise InputError(f"{key}={mode}: expected max or min")


def is_better(value: float, best: float | None, mode: str, min_delta: float = 0.0) -> bool:
    """Whether a value beats the best one so far (None: there is none) by more than `min_delta`; one that is not finite never does."""
    if not math.isfinite(value):
        return False
    if best is None:
        return True
    return value > best + min_delta if mode == "max" else value < best - min_delta


def read_metric(trainer: Any, metric: str, key: str) -> float:
    """Returns the value of a metric at this evaluation; nan where the evaluation could not tell it.

    Args:
        trainer: its storage has the results; to be called on the main process.
        metric: such as "segm/AP".
        key: of the config that names the metric, for the message.

    Raises:
        InputError: no evaluation has ever given such a metric.
    """
    latest: dict[str, tuple[float, int]] = trainer.storage.latest()
    now = last_iteration(trainer)
    fresh = {name: value for name, (value, iteration) in latest.items() if iteration >= now}
    if metric in fresh:
        return fresh[metric]
    # Without a single detection, Detectron2's evaluator knows of no masks: it gives bbox/AP, as nan, and no segm/AP.
    model, _, name = _parts(metric)
    others = [value for other, value in fresh.items() if other != metric and _parts(other)[::2] == (model, name)]
    found_nothing = "/" in metric and bool(others) and all(math.isnan(value) for value in others)
    if metric not in latest and not found_nothing:
        near = difflib.get_close_matches(metric, latest, n=3, cutoff=0.4)
        there = f"did you mean {' or '.join(near)}?" if near else f"there is {', '.join(sorted(latest)) or 'none'}"
        raise InputError(f"{key}={metric}: the evaluation gives no such metric; {there}")
    logger.warning("The evaluation after iteration %d gave no %s", now, metric)
    return math.nan


def _parts(metric: str) -> tuple[str, str, str]:
    """The model, the task and the name of a metric: of "ema/segm/AP", "ema", "segm" and "AP"; of "segm/AP", "", "segm" and "AP"."""
    *model, task, name = ("", *metric.split("/"))[-3:] if "/" in metric else ("", "", metric)
    return "/".join(model), task, name
