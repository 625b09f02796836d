"""Sets the length of a training to a number of epochs or of minutes; what else counts iterations keeps its share of the run."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from omegaconf import DictConfig, OmegaConf
from torch import nn

from maskrcnn_ext.config.file import read_config_file
from maskrcnn_ext.engine.preserved_model import preserved_model
from maskrcnn_ext.engine.train_loop import Trainer
from maskrcnn_ext.engine.training_data import TrainingData
from maskrcnn_ext.errors import InputError

logger = logging.getLogger(__name__)

# What `train.clock` names: seconds that pass, or seconds of all threads of this process, which other programs do not add to.
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
# Keys that count iterations or samples of the run; 0 or null is no count.
COUNTS = ("train.eval_period", "train.checkpointer.period", "dataloader.train.mixed_samples")
_WARM_STEPS, _STEPS, _EVALUATED = 2, 12, 4  # steps and batches that are timed
_MEASURED_SHARE = 0.05  # of the time, that timing takes at most
_STEP_ROOM = 0.9  # steps become slower when the model finds more objects
_EVALUATION_ROOM = 1.2  # metrics take time as well
_EVALUATION_SHARE = 0.3  # of the time, that evaluations take at most


class Speed(NamedTuple):
    """Seconds of a training step and of an evaluation on the whole test set."""

    step: float
    evaluation: float


def read_began(folder: Path) -> DictConfig | None:
    """Returns the config that the run in a folder began with; None if it has none that can be read.

    Call it before Detectron2's ``default_setup``, which replaces the file.
    """
    file = folder / "config.yaml"
    try:
        return read_config_file(str(file)) if file.is_file() else None
    except InputError:
        return None


def fit_length(
    cfg: DictConfig, data: TrainingData, measure: Callable[[float], Speed], *, began: DictConfig | None
) -> None:
    """Sets ``train.max_iter`` from ``train.epochs`` or ``train.time``, and scales the periods of evaluations and checkpoints with it.

    A resumed run keeps the length that it began with, if the setting is the same. Schedules of Detectron2 are relative to the length.

    Args:
        cfg: a LazyConfig with all keys of this package; changed in place.
        data: of the training.
        measure: returns the speed of the training, in about the given number of seconds.
        began: the config of the run that is resumed, of :func:`read_began`; None for a new run.

    Raises:
        InputError: the number of images is unknown, or the time is too short.
    """
    settings = cfg.train
    if settings.epochs is None and settings.time is None:
        return
    if began is not None and _restore_length(cfg, began):
        logger.info("train.max_iter=%d, as the run began", settings.max_iter)
    elif settings.epochs is not None:
        if data.records is None:
            raise InputError("train.epochs needs a list of images in dataloader.train.dataset: set train.max_iter")
        images = int(cfg.dataloader.train.get("total_batch_size", 1)) * settings.accumulate
        set_length(cfg, math.ceil(settings.epochs * len(data.records) / images))
        logger.info(
            "train.epochs=%g: %d iterations of %d images, of %d in all",
            *(settings.epochs, settings.max_iter, images, len(data.records)),
        )
    else:
        _fit_time(cfg, measure)


def set_length(cfg: DictConfig, max_iter: int) -> None:
    """Sets ``train.max_iter``, and changes other counts in the same proportion.

    Example:
        >>> cfg = OmegaConf.create({"train": {"max_iter": 100, "eval_period": 20}})
        >>> set_length(cfg, 50)
        >>> cfg.train.eval_period
        10
    """
    ratio = max_iter / cfg.train.max_iter
    for key in COUNTS:
        count = OmegaConf.select(cfg, key)
        if count:
            OmegaConf.update(cfg, key, max(1, math.ceil(count * ratio)))
    cfg.train.max_iter = max_iter


def _restore_length(cfg: DictConfig, began: DictConfig) -> bool:
    """Gives a run the length and counts that it began with; returns False if it had other settings."""
    if any(began.train.get(key) != cfg.train[key] for key in ("epochs", "time", "clock")):
        return False
    for key in ("train.max_iter", *COUNTS):
        if OmegaConf.select(cfg, key):
            OmegaConf.update(cfg, key, OmegaConf.select(began, key))
    return True


def _fit_time(cfg: DictConfig, measure: Callable[[float], Speed]) -> None:
    settings, clock = cfg.train, CLOCKS[cfg.train.clock]
    start = clock()
    budget = 60.0 * settings.time
    speed = measure(_MEASURED_SHARE * budget)
    # The slowest process decides, and all decide alike.
    step, evaluation, spent = (max(values) for values in zip(*comm.all_gather((*speed, clock() - start)), strict=True))
    count = math.ceil(settings.max_iter / settings.eval_period) if settings.eval_period > 0 else 1
    if evaluation > 0:
        evaluation *= _EVALUATION_ROOM
        count = max(1, min(count, int(_EVALUATION_SHARE * budget / evaluation)))
    iterations = int(_STEP_ROOM * (budget - spent - count * evaluation) / step)
    if iterations < 1:
        raise InputError(
            f"train.time={settings.time:g} minutes are too short: a step takes {step:.1f} seconds, an evaluation {evaluation:.0f}"
        )
    set_length(cfg, iterations)
    if settings.eval_period > 0:
        settings.eval_period = settings.checkpointer.period = math.ceil(iterations / count)
    logger.info(
        "train.time=%g minutes: train.max_iter=%d (%.2f seconds each) and %d evaluations (%.0f seconds each)",
        *(settings.time, iterations, step, count, evaluation),
    )


class _StepTimes(HookBase):
    """Stores when each step ended, and ends the training after a number of seconds."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self.ends: list[float] = []
        self._seconds = seconds
        self._clock = clock

    def after_step(self) -> None:
        self.ends.append(self._clock())
        timed = self.ends[_WARM_STEPS - 1 :]
        if len(timed) > 1 and timed[-1] - timed[0] > self._seconds:
            self.trainer.stop("its speed is known")


def time_steps(trainer: Trainer, seconds: float, clock: Callable[[], float] = time.perf_counter) -> float:
    """Returns the seconds of a training step, from about this many seconds of steps with a learning rate of 0."""
    for group in trainer.optimizer.param_groups:
        group["lr"] = 0.0
    times = _StepTimes(seconds, clock)
    trainer.register_hooks([times])
    trainer.train(0, _WARM_STEPS + _STEPS)
    timed = times.ends[_WARM_STEPS - 1 :]
    return (timed[-1] - timed[0]) / (len(timed) - 1)


def time_evaluation(
    model: nn.Module,
    loader: Iterable[list[dict[str, Any]]],
    num_batches: int,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Returns the seconds that a model needs for all batches of a loader, from the first few of them."""
    done = 0
    start = clock()
    with preserved_model(model):
        model.eval()
        for batch in loader:
            if done == 1:
                start = clock()  # the first one starts the loader's workers
            model(batch)
            done += 1
            if done == 1 + _EVALUATED:
                break
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (clock() - start) / max(1, done - 1) * num_batches
