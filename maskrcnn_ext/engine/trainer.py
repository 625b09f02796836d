"""What ``tools/lazyconfig_train_net.py`` of Detectron2 does, as functions; step by step in its order, so that the losses are its losses."""

from __future__ import annotations

import argparse
import logging
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import instantiate
from detectron2.engine import AMPTrainer, SimpleTrainer, default_setup, default_writers, hooks
from detectron2.engine.defaults import create_ddp_model
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.utils import comm
from omegaconf import DictConfig
from torch import nn

from maskrcnn_ext.modeling.pairing import check_pairing

logger = logging.getLogger(__name__)


def choose_device(cfg: DictConfig) -> None:
    """Sets ``train.device`` to the CPU where a config asks for CUDA and there is none; several processes then use gloo."""
    if str(cfg.train.device).startswith("cuda") and not torch.cuda.is_available():
        logger.warning("train.device=%s, but this machine has no CUDA device: training on the CPU", cfg.train.device)
        cfg.train.device = "cpu"
    if cfg.train.device == "cpu":
        cfg.train.ddp.device_ids = None


def build_model(cfg: DictConfig) -> nn.Module:
    """Builds ``cfg.model`` on ``cfg.train.device``; not yet wrapped for several processes.

    Raises:
        InputError: a mask head and what it is paired with do not fit.
    """
    model: nn.Module = instantiate(cfg.model)
    check_pairing(model)
    logger.info("Model:\n%s", model)
    return model.to(cfg.train.device)


def evaluate(cfg: DictConfig, model: nn.Module) -> dict[str, Any]:
    """Runs the model on ``cfg.dataloader.test`` and returns what ``cfg.dataloader.evaluator`` says; {} where there is no evaluator."""
    if "evaluator" not in cfg.dataloader:
        return {}
    # The loader first: it registers a data set that is given as a string, which the evaluator then knows by it.
    loader = instantiate(cfg.dataloader.test)
    results: dict[str, Any] = inference_on_dataset(model, loader, instantiate(cfg.dataloader.evaluator))
    if comm.is_main_process():
        print_csv_format(results)
    return results


def evaluate_only(cfg: DictConfig) -> dict[str, Any]:
    """Loads ``train.init_checkpoint`` and evaluates it."""
    model = create_ddp_model(build_model(cfg), **cfg.train.ddp)
    DetectionCheckpointer(model).load(cfg.train.init_checkpoint)
    return evaluate(cfg, model)


def train(cfg: DictConfig, *, resume: bool) -> None:
    """Trains ``cfg.model`` for ``train.max_iter`` iterations, evaluating and saving as ``train`` says.

    Args:
        cfg: a LazyConfig with model, dataloader, optimizer, lr_multiplier and train.
        resume: go on from the last checkpoint of ``train.output_dir`` if there is one.
    """
    model = build_model(cfg)
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    loader = instantiate(cfg.dataloader.train)
    model = create_ddp_model(model, **cfg.train.ddp)
    trainer = (AMPTrainer if cfg.train.amp.enabled else SimpleTrainer)(model, loader, optimizer)
    checkpointer = DetectionCheckpointer(model, cfg.train.output_dir, trainer=trainer)

    is_main = comm.is_main_process()
    trainer.register_hooks(
        [
            hooks.IterationTimer(),
            hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier)),
            hooks.PeriodicCheckpointer(checkpointer, **cfg.train.checkpointer) if is_main else None,
            hooks.EvalHook(cfg.train.eval_period, lambda: evaluate(cfg, model)),
            hooks.PeriodicWriter(default_writers(cfg.train.output_dir, cfg.train.max_iter), period=cfg.train.log_period)
            if is_main
            else None,
        ]
    )
    checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=resume)
    # A checkpoint holds the iteration that had just finished.
    start = trainer.iter + 1 if resume and checkpointer.has_checkpoint() else 0
    trainer.train(start, cfg.train.max_iter)


def run(args: argparse.Namespace, cfg: DictConfig) -> None:
    """The body of one process: sets up logging and seeds, then trains or evaluates."""
    choose_device(cfg)
    default_setup(cfg, args)
    if args.eval_only:
        evaluate_only(cfg)
    else:
        train(cfg, resume=args.resume)
