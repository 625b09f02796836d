"""Runs a few steps of a training whose weights are dropped: to find the learning rate, and to measure the speed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from detectron2.config import instantiate
from detectron2.engine import hooks
from detectron2.utils import comm
from detectron2.utils.events import CommonMetricPrinter
from omegaconf import DictConfig
from torch import nn

from maskrcnn_ext.common.random_state import preserved_random_state
from maskrcnn_ext.engine.building import (
    batch_size,
    build_model_and_optimizer,
    build_train_loader,
    make_checkpointer,
    make_trainer,
)
from maskrcnn_ext.engine.hooks.lr_finder import LRFinder
from maskrcnn_ext.engine.hooks.progress import make_progress_bar
from maskrcnn_ext.engine.loader_faults import GuardedLoader
from maskrcnn_ext.engine.run_length import CLOCKS, Speed, time_evaluation, time_steps
from maskrcnn_ext.engine.training_data import TrainingData

_DETECTIONS = 3  # of a trained model for each object, most of them of low scores


def find_learning_rate(cfg: DictConfig, data: TrainingData) -> None:
    """Runs the learning rate finder of ``train.lr_finder``; writes no checkpoint."""
    model, optimizer = build_model_and_optimizer(cfg)
    make_checkpointer(cfg, model).load(cfg.train.init_checkpoint, strict=cfg.train.loading.strict)
    settings = cfg.train.lr_finder
    finder = LRFinder(
        lowest=settings.lowest, highest=settings.highest, steps=settings.steps, output_dir=cfg.train.output_dir
    )
    loader = GuardedLoader(build_train_loader(cfg, data), cfg.train.loader_timeout)
    trainer = make_trainer(cfg, model, loader, optimizer, finder)
    bar = make_progress_bar(cfg.train.progress, batch_size=batch_size(cfg))
    printer = CommonMetricPrinter(settings.steps)
    lines = hooks.PeriodicWriter([printer], cfg.train.log_period) if comm.is_main_process() else None
    trainer.register_hooks([hooks.IterationTimer(), finder, bar, lines])
    trainer.train(0, settings.steps)


def measure_speed(cfg: DictConfig, data: TrainingData, seconds: float) -> Speed:
    """Returns the speed of a training from about this many seconds of steps, whose weights and random numbers are dropped."""
    clock = CLOCKS[cfg.train.clock]
    with preserved_random_state():
        model, optimizer = build_model_and_optimizer(cfg)
        loader = GuardedLoader(build_train_loader(cfg, data), cfg.train.loader_timeout)
        step = time_steps(make_trainer(cfg, model, loader, optimizer, None), seconds, clock)
        evaluation = 0.0
        if "evaluator" in cfg.dataloader:
            test = instantiate(cfg.dataloader.test)
            if data.records:
                _limit_detections(model, data.records)
            evaluation = time_evaluation(model, test, len(test), clock)
    cfg.optimizer.params.model = None
    return Speed(step, evaluation)


def _limit_detections(model: nn.Module, records: Sequence[dict[str, Any]]) -> None:
    """Limits the detections of an image to what a trained model finds. An untrained one finds as many as it may, and each takes time."""
    objects = sum(len(record.get("annotations", ())) for record in records) / len(records)
    limit = max(1, math.ceil(_DETECTIONS * objects))
    for module in model.modules():
        if getattr(module, "test_topk_per_image", -1) > limit:
            module.test_topk_per_image = limit
