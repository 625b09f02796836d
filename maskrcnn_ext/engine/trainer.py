"""Puts a training together and runs it, in the step order of Detectron2's ``tools/lazyconfig_train_net.py``, so that losses are equal."""

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
from maskrcnn_ext.engine.acceleration import amp_dtype, checkpoint_activations, compile_backbone, enable_winograd
from maskrcnn_ext.engine.checkpoint.checkpointer import Checkpointer, mismatch_explained
from maskrcnn_ext.engine.checkpoint.class_rows import ClassRows
from maskrcnn_ext.engine.determinism import deterministic, explain_nondeterminism
from maskrcnn_ext.engine.guard.divergence import DivergenceGuard
from maskrcnn_ext.engine.guard.preflight import preflight
from maskrcnn_ext.engine.hooks.checkpointing import Checkpointing
from maskrcnn_ext.engine.hooks.ema import EMA
from maskrcnn_ext.engine.hooks.evaluation import Evaluation, EvaluationHook
from maskrcnn_ext.engine.hooks.image_panel import ImagePanel, load_panel_data
from maskrcnn_ext.engine.hooks.lr_finder import LRFinder
from maskrcnn_ext.engine.hooks.model_selection import Best, EarlyStopping
from maskrcnn_ext.engine.hooks.preemption import PREEMPTED, Preemption
from maskrcnn_ext.engine.hooks.progress import make_progress_bar
from maskrcnn_ext.engine.hooks.validation_loss import ValidationLoss, build_validation_loader
from maskrcnn_ext.engine.hooks.writers import start_writers
from maskrcnn_ext.engine.loader_faults import GuardedLoader
from maskrcnn_ext.engine.manifest import finish_manifest, write_manifest
from maskrcnn_ext.engine.preserved_model import preserved_model
from maskrcnn_ext.engine.resume.loader import ResumableLoader
from maskrcnn_ext.engine.resume.state import LoopState, Restore
from maskrcnn_ext.engine.train_loop import Guard, Trainer
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.modeling.fit_check import check_fit

logger = logging.getLogger(__name__)


def run(args: argparse.Namespace, cfg: DictConfig) -> int:
    """Runs one process: sets up logging and seeds, then trains or evaluates.

    Args:
        args: parsed by :func:`maskrcnn_ext.engine.main.parse_args`.
        cfg: a LazyConfig with all keys of this package.

    Returns:
        The exit status.
    """
    choose_device(cfg)
    default_setup(cfg, args)
    folder, is_main = Path(cfg.train.output_dir), comm.is_main_process()
    with logged_like_detectron2():
        if is_main:
            try:
                save_config(cfg, folder / "config.yaml")
            except InputError as error:  # Detectron2 also trains with a config that cannot be written
                logger.warning("%s", error)
        if args.eval_only:
            evaluate_checkpoint(cfg)
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


class Training:
    """A training that is ready to run.

    Attributes:
        trainer: the training loop with all hooks.
        checkpointing: the hook that saves checkpoints.
        preemption: the hook that stops on signals.

    Example::

        Training(load_config("domains/shapes.py", ["train.max_iter=100"]), resume=False).run()
    """

    def __init__(self, cfg: DictConfig, *, resume: bool) -> None:
        """Builds the model, the loader, the optimizer and the hooks.

        Args:
            cfg: a LazyConfig with model, dataloader, optimizer, lr_multiplier and train, and with all keys of this package.
            resume: whether to resume from the last checkpoint of ``train.output_dir``, if there is one.
        """
        settings = cfg.train
        model = build_model(cfg)
        cfg.optimizer.params.model = model
        optimizer = instantiate(cfg.optimizer)
        checkpoint_activations(model, settings.activation_checkpointing)
        if settings.compile:
            compile_backbone(model)
        model = create_ddp_model(model, **settings.ddp)

        # Weights before the loader: the checkpoint contains the data position, and the random state that seeds the samplers.
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
        state.set_position(data)
        loader = GuardedLoader(data, settings.loader_timeout)
        # The class names of data sets are known only after these have been read.
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
        evaluation_hooks = list(_make_evaluation_hooks(cfg, model, checkpointer, ema))
        self.trainer.register_hooks(
            [
                guard,
                hooks.IterationTimer(),
                hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier)),
                ema,
                self.checkpointing,
                *evaluation_hooks,
                *instantiate(settings.hooks),
                make_progress_bar(settings.progress, batch_size=_batch_size(cfg)),
                hooks.PeriodicWriter(make_writers(cfg, resumes=resumes), settings.log_period) if is_main else None,
                self.preemption,
                Restore(state, at_evaluation=evaluation_hooks, period=settings.eval_period) if resumes else None,
            ]
        )
        checkpointer.add_checkpointable("trainer", self.trainer)
        self._data = data
        self._start = 0
        if resumes:
            with mismatch_explained(f"the checkpoint in {settings.output_dir}"):
                self.trainer.load_state_dict(saved["trainer"])
            self._start = self.trainer.iter + 1  # the checkpoint has the last iteration that finished
        self._max_iter = settings.max_iter

    def run(self) -> int:
        """Trains; returns the exit status."""
        try:
            self.trainer.train(self._start, self._max_iter)
        finally:
            self._data.close()
        if self.trainer.stop_reason:
            self.checkpointing.save_now()
        comm.synchronize()  # no process ends while the main one writes
        return PREEMPTED if self.preemption.received else 0


def choose_device(cfg: DictConfig) -> None:
    """Sets ``train.device`` to the CPU if the config asks for CUDA and the machine has none; several processes then use gloo."""
    if str(cfg.train.device).startswith("cuda") and not torch.cuda.is_available():
        logger.warning("train.device=%s, but this machine has no CUDA device: training on the CPU", cfg.train.device)
        cfg.train.device = "cpu"
    if cfg.train.device == "cpu":
        cfg.train.ddp.device_ids = None


def build_model(cfg: DictConfig) -> nn.Module:
    """Builds ``cfg.model`` on ``cfg.train.device``, not wrapped in DistributedDataParallel.

    Raises:
        InputError: parts of the model do not fit each other.
    """
    model: nn.Module = instantiate(cfg.model)
    check_fit(model)
    logger.info("Model:\n%s", model)
    model.to(cfg.train.device)
    if cfg.train.channels_last:
        model.to(memory_format=torch.channels_last)
    if cfg.train.winograd:
        logger.info("%d convolutions use Winograd's algorithm", enable_winograd(model, compiled=cfg.train.compile))
    return model


def make_checkpointer(cfg: DictConfig, model: nn.Module) -> Checkpointer:
    """Returns the checkpointer of ``train.output_dir``."""
    return Checkpointer(model, cfg.train.output_dir, allow_pickle=cfg.train.loading.allow_pickle)


def make_trainer(
    cfg: DictConfig, model: nn.Module, loader: GuardedLoader, optimizer: torch.optim.Optimizer, guard: Guard | None
) -> Trainer:
    """Returns the training loop with the precision, accumulation and clipping of ``cfg.train``, without hooks."""
    settings = cfg.train
    return Trainer(
        model,
        loader,
        optimizer,
        amp=amp_dtype(settings.amp.dtype, settings.device) if settings.amp.enabled else None,
        accumulate=settings.accumulate,
        clip_grad=settings.clip_grad,
        guard=guard,
        explain_error=lambda error: explain_training_error(error, loader),
    )


def make_writers(cfg: DictConfig, *, resumes: bool) -> list[EventWriter]:
    """Returns Detectron2's writers and those of ``train.writers``."""
    settings = cfg.train
    *first, tensorboard = default_writers(settings.output_dir, settings.max_iter)
    # TensorBoard's writer is last, because it clears the images.
    return [*first, *start_writers(settings.writers, settings.output_dir, cfg, resume=resumes), tensorboard]


def _make_evaluation_hooks(
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
    if settings.image_panel.count:
        count = settings.image_panel.count
        yield ImagePanel(period, model, lambda: load_panel_data(cfg, count), output_dir=settings.output_dir)
    if settings.best.metric is not None:
        yield Best(period, checkpointer, **settings.best)
    if settings.early_stopping.metric is not None:
        yield EarlyStopping(period, **settings.early_stopping)


def evaluate(cfg: DictConfig, model: nn.Module) -> dict[str, Any]:
    """Runs the model on ``cfg.dataloader.test``; returns the results of ``cfg.dataloader.evaluator``, {} without an evaluator."""
    if "evaluator" not in cfg.dataloader:
        return {}
    # The loader first: it registers a data set that is given as a string, which the evaluator looks up.
    loader = instantiate(cfg.dataloader.test)
    results: dict[str, Any] = inference_on_dataset(model, loader, instantiate(cfg.dataloader.evaluator))
    if comm.is_main_process():
        print_csv_format(results)
    return results or {}


def evaluate_checkpoint(cfg: DictConfig) -> dict[str, Any]:
    """Loads ``train.init_checkpoint`` and evaluates it."""
    model = create_ddp_model(build_model(cfg), **cfg.train.ddp)
    make_checkpointer(cfg, model).load(cfg.train.init_checkpoint, strict=cfg.train.loading.strict)
    return evaluate(cfg, model)


def find_learning_rate(cfg: DictConfig) -> None:
    """Runs the learning rate finder of ``train.lr_finder``; writes no checkpoint."""
    model = build_model(cfg)
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    model = create_ddp_model(model, **cfg.train.ddp)
    make_checkpointer(cfg, model).load(cfg.train.init_checkpoint, strict=cfg.train.loading.strict)
    settings = cfg.train.lr_finder
    finder = LRFinder(
        lowest=settings.lowest, highest=settings.highest, steps=settings.steps, output_dir=cfg.train.output_dir
    )
    loader = GuardedLoader(instantiate(cfg.dataloader.train), cfg.train.loader_timeout)
    trainer = make_trainer(cfg, model, loader, optimizer, finder)
    bar = make_progress_bar(cfg.train.progress, batch_size=_batch_size(cfg))
    printer = CommonMetricPrinter(settings.steps)
    lines = hooks.PeriodicWriter([printer], cfg.train.log_period) if comm.is_main_process() else None
    trainer.register_hooks([hooks.IterationTimer(), finder, bar, lines])
    trainer.train(0, settings.steps)


def explain_training_error(error: BaseException, loader: GuardedLoader) -> InputError | None:
    """Returns a one-line explanation of an error that ended training; None if it is unknown."""
    if isinstance(error, torch.OutOfMemoryError):
        return InputError(
            f"{str(error).split('.')[0]}: use fewer images per iteration (dataloader.train.total_batch_size, with train.accumulate for the "
            "same batch), smaller images, train.amp.enabled=true, or train.activation_checkpointing=[backbone]"
        )
    return explain_nondeterminism(error) or loader.explain(error)


def _batch_size(cfg: DictConfig) -> int:
    """Returns the number of images per iteration, of all processes together."""
    return int(cfg.dataloader.train.get("total_batch_size", 1)) * int(cfg.train.accumulate)


def _train_set(cfg: DictConfig) -> str:
    names = cfg.dataloader.train.dataset.names
    return str(names if isinstance(names, str) else names[0])


@contextmanager
def logged_like_detectron2() -> Iterator[None]:
    """Sends this package's log messages where Detectron2's go, to the terminal and to ``log.txt``."""
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
