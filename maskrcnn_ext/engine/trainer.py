"""What ``tools/lazyconfig_train_net.py`` of Detectron2 does, step by step in its order, so that the losses are its losses; more by key."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.engine import default_setup, default_writers, hooks
from detectron2.engine.defaults import create_ddp_model
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.utils import comm
from detectron2.utils.events import CommonMetricPrinter, EventWriter
from omegaconf import DictConfig
from torch import nn

from maskrcnn_ext.common.distributed import unwrap_ddp
from maskrcnn_ext.config.config_yaml import save_config
from maskrcnn_ext.engine import determinism
from maskrcnn_ext.engine.acceleration import amp_dtype, checkpoint_activations, compile_parts, winograd_convolutions
from maskrcnn_ext.engine.checkpoint.checkpointer import Checkpointer
from maskrcnn_ext.engine.checkpoint.class_rows import ClassRows
from maskrcnn_ext.engine.determinism import deterministic
from maskrcnn_ext.engine.guard.divergence import DivergenceGuard
from maskrcnn_ext.engine.guard.preflight import preflight
from maskrcnn_ext.engine.hooks.checkpointing import Checkpointing
from maskrcnn_ext.engine.hooks.ema import EMA
from maskrcnn_ext.engine.hooks.evaluation import Evaluation, EvaluationHook
from maskrcnn_ext.engine.hooks.image_panel import ImagePanel, panel_data
from maskrcnn_ext.engine.hooks.lr_finder import LRFinder
from maskrcnn_ext.engine.hooks.model_selection import Best, EarlyStopping
from maskrcnn_ext.engine.hooks.preemption import PREEMPTED, Preemption
from maskrcnn_ext.engine.hooks.progress import make_progress_bar
from maskrcnn_ext.engine.hooks.validation_loss import ValidationLoss, validation_loader
from maskrcnn_ext.engine.hooks.writers import extra_writers
from maskrcnn_ext.engine.loader_faults import GuardedLoader, guard_loader
from maskrcnn_ext.engine.manifest import finish_manifest, write_manifest
from maskrcnn_ext.engine.preserved_model import preserved_model
from maskrcnn_ext.engine.resume.loader import ResumableLoader
from maskrcnn_ext.engine.resume.state import LoopState, Restore
from maskrcnn_ext.engine.train_loop import Guard, Trainer
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.modeling.fit_check import check_fit

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
    check_fit(model)
    logger.info("Model:\n%s", model)
    model.to(cfg.train.device)
    if cfg.train.channels_last:
        model.to(memory_format=torch.channels_last)
    if cfg.train.winograd:
        logger.info("%d convolutions are Winograd's", winograd_convolutions(model, compiled=cfg.train.compile))
    return model


def evaluate(cfg: DictConfig, model: nn.Module) -> dict[str, Any]:
    """Runs the model on ``cfg.dataloader.test`` and returns what ``cfg.dataloader.evaluator`` says; {} where there is no evaluator."""
    if "evaluator" not in cfg.dataloader:
        return {}
    # The loader first: it registers a data set that is given as a string, which the evaluator then knows by it.
    loader = instantiate(cfg.dataloader.test)
    results: dict[str, Any] = inference_on_dataset(model, loader, instantiate(cfg.dataloader.evaluator))
    if comm.is_main_process():
        print_csv_format(results)
    return results or {}


def evaluate_only(cfg: DictConfig) -> dict[str, Any]:
    """Loads ``train.init_checkpoint`` and evaluates it."""
    model = create_ddp_model(build_model(cfg), **cfg.train.ddp)
    make_checkpointer(cfg, model).load(cfg.train.init_checkpoint, strict=cfg.train.loading.strict)
    return evaluate(cfg, model)


def make_checkpointer(cfg: DictConfig, model: nn.Module) -> Checkpointer:
    """Returns what reads and writes the checkpoints of ``train.output_dir``."""
    return Checkpointer(model, cfg.train.output_dir, allow_pickle=cfg.train.loading.allow_pickle)


def make_trainer(
    cfg: DictConfig, model: nn.Module, loader: GuardedLoader, optimizer: torch.optim.Optimizer, guard: Guard | None
) -> Trainer:
    """Returns the loop with the steps that ``cfg.train`` asks for, without any hook."""
    settings = cfg.train
    return Trainer(
        model,
        loader,
        optimizer,
        amp=amp_dtype(settings.amp.dtype, settings.device) if settings.amp.enabled else None,
        accumulate=settings.accumulate,
        clip_grad=settings.clip_grad,
        guard=guard,
        explain=lambda error: explain(error, loader),
    )


class Training:
    """A training that is put together and can be run.

    Attributes:
        trainer: with all hooks.
        checkpointing: the hook that saves.
        preemption: the hook that listens to signals.
    """

    def __init__(self, cfg: DictConfig, *, resume: bool) -> None:
        """Puts together what ``cfg`` says.

        Args:
            cfg: a LazyConfig with model, dataloader, optimizer, lr_multiplier and train, complete with this package's keys.
            resume: go on from the last checkpoint of ``train.output_dir`` if there is one.
        """
        settings = cfg.train
        model = build_model(cfg)
        cfg.optimizer.params.model = model
        optimizer = instantiate(cfg.optimizer)
        checkpoint_activations(model, settings.activation_checkpointing)
        if settings.compile:
            compile_parts(model)
        model = create_ddp_model(model, **settings.ddp)

        # Weights before the loader: with them comes where in the data the run was, and the generators that samplers are seeded from.
        checkpointer = make_checkpointer(cfg, model)
        resumes = resume and checkpointer.has_checkpoint()
        names = settings.loading.class_names
        saved = checkpointer.resume_or_load(
            settings.init_checkpoint,
            resume=resume,
            strict=settings.loading.strict,
            class_rows=None if names is None or resumes else ClassRows.from_config(names, _train_set(cfg)),
        )
        state = LoopState(saved.get("loop") if resumes else None)
        state.before_loader()
        data = ResumableLoader(instantiate(cfg.dataloader.train))
        state.to_place(data)
        loader = guard_loader(data, settings.loader_timeout)
        # Now that data sets have been read their classes are known.
        for warning in preflight(cfg, unwrap_ddp(model), optimizer):
            logger.warning("%s", warning)

        guard = (
            DivergenceGuard(settings.output_dir, on_fault=settings.guard.on_fault) if settings.guard.enabled else None
        )
        self.trainer = make_trainer(cfg, model, loader, optimizer, guard)
        self.checkpointing = Checkpointing(checkpointer, **settings.checkpointer, collect=state.collect)
        self.preemption = Preemption()
        ema = EMA(settings.ema.decay) if settings.ema.decay is not None else None
        is_main = comm.is_main_process()
        judges = list(_judges(cfg, model, checkpointer, ema))
        self.trainer.register_hooks(
            [
                guard,
                hooks.IterationTimer(),
                hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier)),
                ema,
                self.checkpointing,
                *judges,
                *instantiate(settings.hooks),
                make_progress_bar(settings.progress, batch_size=batch_size(cfg)),
                hooks.PeriodicWriter(writers(cfg, resumes=resumes), settings.log_period) if is_main else None,
                self.preemption,
                Restore(state, at_evaluation=judges, period=settings.eval_period) if resumes else None,
            ]
        )
        checkpointer.add_checkpointable("trainer", self.trainer)
        self._data = data
        self._start = 0
        if resumes:
            _load_state(self.trainer, saved, settings.output_dir)
            # A checkpoint holds the iteration that had just finished.
            self._start = self.trainer.iter + 1
        self._max_iter = settings.max_iter

    def run(self) -> int:
        """Trains; returns the exit status."""
        try:
            self.trainer.train(self._start, self._max_iter)
        finally:
            self._data.close()
        if self.trainer.stop_reason:
            self.checkpointing.save_now()
        comm.synchronize()  # nobody ends while the main process writes
        return PREEMPTED if self.preemption.received else 0


def _load_state(trainer: Trainer, saved: dict[str, Any], output_dir: str) -> None:
    """Gives a checkpoint's state to the trainer; raises InputError where it is not that of such a run."""
    try:
        trainer.load_state_dict(saved["trainer"])
    except (KeyError, ValueError, RuntimeError, TypeError) as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        raise InputError(
            f"the checkpoint in {output_dir} does not fit this run ({type(error).__name__}: {reason}): resume with the config that it was "
            "trained with, or start anew from its weights (train.init_checkpoint, another train.output_dir)"
        ) from error


def batch_size(cfg: DictConfig) -> int:
    """Returns the images of one iteration, of all processes together."""
    return int(cfg.dataloader.train.get("total_batch_size", 1)) * int(cfg.train.accumulate)


def _train_set(cfg: DictConfig) -> str:
    names = cfg.dataloader.train.dataset.names
    return str(names if isinstance(names, str) else names[0])


def _judges(cfg: DictConfig, model: nn.Module, checkpointer: Checkpointer, ema: EMA | None) -> Iterator[EvaluationHook]:
    """The hooks that look at the model every ``train.eval_period`` iterations, in their order."""
    settings, period = cfg.train, cfg.train.eval_period

    def results() -> dict[str, Any]:
        found = evaluate(cfg, model)
        if ema is not None:
            # Without a trace in the training: a loader draws a random number.
            with preserved_model(model), ema.applied(model):
                logger.info("Evaluating the averaged weights")
                found = {**found, "ema": evaluate(cfg, model)}
        return found

    if settings.validation_loss:
        yield ValidationLoss(period, model, lambda: validation_loader(cfg))
    yield Evaluation(period, results)
    if settings.image_panel.count:
        count = settings.image_panel.count
        yield ImagePanel(period, model, lambda: panel_data(cfg, count), output_dir=settings.output_dir)
    if settings.best.metric is not None:
        yield Best(period, checkpointer, **settings.best)
    if settings.early_stopping.metric is not None:
        yield EarlyStopping(period, **settings.early_stopping)


def writers(cfg: DictConfig, *, resumes: bool) -> list[EventWriter]:
    """Returns Detectron2's writers, and those of ``train.writers``."""
    settings = cfg.train
    *first, tensorboard = default_writers(settings.output_dir, settings.max_iter)
    # TensorBoard's is the last: it takes the images with it.
    return [*first, *extra_writers(settings.writers, settings.output_dir, cfg, resume=resumes), tensorboard]


def find_learning_rate(cfg: DictConfig) -> None:
    """Runs ``train.lr_finder`` and nothing else: no checkpoint is written."""
    model = build_model(cfg)
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    model = create_ddp_model(model, **cfg.train.ddp)
    make_checkpointer(cfg, model).load(cfg.train.init_checkpoint, strict=cfg.train.loading.strict)
    steps = cfg.train.lr_finder.steps
    finder = LRFinder(
        lowest=cfg.train.lr_finder.lowest,
        highest=cfg.train.lr_finder.highest,
        steps=steps,
        output_dir=cfg.train.output_dir,
    )
    loader = guard_loader(instantiate(cfg.dataloader.train), cfg.train.loader_timeout)
    trainer = make_trainer(cfg, model, loader, optimizer, finder)
    bar = make_progress_bar(cfg.train.progress, batch_size=batch_size(cfg))
    lines = hooks.PeriodicWriter([CommonMetricPrinter(steps)], cfg.train.log_period) if comm.is_main_process() else None
    trainer.register_hooks([hooks.IterationTimer(), finder, bar, lines])
    trainer.train(0, steps)


def explain(error: BaseException, loader: GuardedLoader) -> InputError | None:
    """Returns in one line what is known of an error that has ended training; None where nothing is."""
    if isinstance(error, torch.OutOfMemoryError):
        return InputError(
            f"{str(error).split('.')[0]}: fewer images an iteration (dataloader.train.total_batch_size, with train.accumulate for the same "
            "batch), smaller ones, train.amp.enabled=true, or train.activation_checkpointing=[backbone] take less"
        )
    return determinism.explain(error) or loader.explain(error)


def run(args: argparse.Namespace, cfg: DictConfig) -> int:
    """The body of one process: sets up logging and seeds, then trains or evaluates; returns the exit status."""
    choose_device(cfg)
    default_setup(cfg, args)
    folder, is_main = Path(cfg.train.output_dir), comm.is_main_process()
    with logged_as_detectron2():
        if is_main:
            try:
                save_config(cfg, folder / "config.yaml")
            except InputError as error:  # Detectron2 trains with what cannot be written as well
                logger.warning("%s", error)
        if args.eval_only:
            evaluate_only(cfg)
            return 0
        if is_main:
            write_manifest(cfg, folder / "manifest.json", world_size=comm.get_world_size())
        status = "failed"
        try:
            with deterministic(cfg.train.seed) if cfg.train.deterministic else nullcontext():
                if cfg.train.lr_finder.enabled:
                    find_learning_rate(cfg)
                    code = 0
                else:
                    code = Training(cfg, resume=args.resume).run()
            status = "preempted" if code == PREEMPTED else "finished"
            return code
        finally:
            if is_main:
                finish_manifest(folder / "manifest.json", status)


@contextmanager
def logged_as_detectron2() -> Iterator[None]:
    """Lets this package's messages go where Detectron2's go, to the terminal and to ``log.txt``."""
    ours, theirs = logging.getLogger("maskrcnn_ext"), logging.getLogger("detectron2")
    added = [handler for handler in theirs.handlers if handler not in ours.handlers]
    level = ours.level
    ours.setLevel(logging.INFO)
    for handler in added:
        ours.addHandler(handler)
    try:
        yield
    finally:
        ours.setLevel(level)
        for handler in added:
            ours.removeHandler(handler)
