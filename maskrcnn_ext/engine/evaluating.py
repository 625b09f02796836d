"""Evaluates the model of a config: a checkpoint by itself, and the model in training every ``train.eval_period`` iterations."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

from detectron2.config import instantiate
from detectron2.engine.defaults import create_ddp_model
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.utils import comm
from omegaconf import DictConfig
from torch import nn

from maskrcnn_ext.config.checkpoint_weights import expect_checkpoint
from maskrcnn_ext.data.registry.classes import Classes
from maskrcnn_ext.engine.building import (
    build_model,
    make_checkpointer,
)
from maskrcnn_ext.engine.checkpoint.checkpointer import Checkpointer
from maskrcnn_ext.engine.hooks.ema import EMA
from maskrcnn_ext.engine.hooks.evaluation import Evaluation, EvaluationHook
from maskrcnn_ext.engine.hooks.image_panel import ImagePanel, load_panel_data
from maskrcnn_ext.engine.hooks.model_selection import Best, EarlyStopping
from maskrcnn_ext.engine.hooks.validation_loss import ValidationLoss, build_validation_loader
from maskrcnn_ext.engine.loader_faults import GuardedLoader
from maskrcnn_ext.engine.preserved_model import preserved_model
from maskrcnn_ext.engine.training_data import (
    check_test_data,
)

logger = logging.getLogger(__name__)


def evaluate(cfg: DictConfig, model: nn.Module) -> dict[str, Any]:
    """Runs the model on ``cfg.dataloader.test``; returns the results of ``cfg.dataloader.evaluator``, {} without an evaluator."""
    if "evaluator" not in cfg.dataloader:
        return {}
    # The loader first: it registers a data set that is given as a string, which the evaluator looks up.
    loader = GuardedLoader(instantiate(cfg.dataloader.test))
    results: dict[str, Any] = inference_on_dataset(model, loader, instantiate(cfg.dataloader.evaluator))
    if comm.is_main_process():
        print_csv_format(results)
    return results or {}


def evaluate_checkpoint(cfg: DictConfig) -> dict[str, Any]:
    """Loads ``train.init_checkpoint`` and evaluates it."""
    weights = cfg.train.init_checkpoint
    model = create_ddp_model(build_model(expect_checkpoint(cfg) if weights else cfg), **cfg.train.ddp)
    saved = make_checkpointer(cfg, model).load(weights, strict=cfg.train.loading.strict)
    check_test_data(cfg, Classes.from_state(saved.get("classes")), weights)
    return evaluate(cfg, model)


def make_evaluation_hooks(
    cfg: DictConfig, model: nn.Module, checkpointer: Checkpointer, ema: EMA | None
) -> Iterator[EvaluationHook]:
    """Yields the hooks that run every ``train.eval_period`` iterations, in their order."""
    settings, period = cfg.train, cfg.train.eval_period

    def evaluate_with_average() -> dict[str, Any]:
        results = evaluate(cfg, model)
        if ema is not None:
            # Must not affect the training: a loader draws a random number when it starts.
            with preserved_model(model), ema.applied(model):
                logger.info("Evaluating the averaged weights")
                results = {**results, "ema": evaluate(cfg, model)}
        return results

    if settings.validation_loss:
        yield ValidationLoss(period, model, lambda: build_validation_loader(cfg))
    yield Evaluation(period, evaluate_with_average)
    count = settings.image_panel.count
    # A team's own loader may have neither.
    if count and "dataset" in cfg.dataloader.test and "mapper" in cfg.dataloader.test:
        yield ImagePanel(period, model, lambda: load_panel_data(cfg, count), output_dir=settings.output_dir)
    if settings.best.metric is not None:
        is_average = settings.best.metric.startswith("ema/")
        weights = partial(ema.applied, model) if ema is not None and is_average else nullcontext
        yield Best(period, checkpointer, metric=settings.best.metric, mode=settings.best.mode, weights=weights)
    if settings.early_stopping.metric is not None:
        yield EarlyStopping(period, **settings.early_stopping)
