"""Puts a training together and runs it, in the step order of Detectron2's ``tools/lazyconfig_train_net.py``, so that losses are equal."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from detectron2.config import instantiate
from detectron2.engine import HookBase, default_setup, default_writers, hooks
from detectron2.utils import comm
from detectron2.utils.events import CommonMetricPrinter, EventWriter
from omegaconf import DictConfig

from maskrcnn_ext.common.distributed import decide_on_main, unwrap_ddp
from maskrcnn_ext.common.lock import lock_folder
from maskrcnn_ext.common.text import short_list
from maskrcnn_ext.config.config_yaml import save_config
from maskrcnn_ext.config.data_sets import COUNTS
from maskrcnn_ext.config.provenance import is_shipped_value
from maskrcnn_ext.data.registry.classes import Classes
from maskrcnn_ext.engine.building import (
    batch_size,
    build_model_and_optimizer,
    build_train_loader,
    choose_device,
    make_checkpointer,
    make_trainer,
)
from maskrcnn_ext.engine.checkpoint import history
from maskrcnn_ext.engine.checkpoint.checkpointer import mismatch_explained
from maskrcnn_ext.engine.checkpoint.class_rows import ClassRows
from maskrcnn_ext.engine.determinism import deterministic
from maskrcnn_ext.engine.evaluating import evaluate, evaluate_checkpoint, make_evaluation_hooks
from maskrcnn_ext.engine.guard.divergence import DivergenceGuard
from maskrcnn_ext.engine.guard.preflight import preflight
from maskrcnn_ext.engine.hooks.checkpointing import Checkpointing
from maskrcnn_ext.engine.hooks.ema import EMA
from maskrcnn_ext.engine.hooks.evaluation import EvaluationWriter, last_iteration
from maskrcnn_ext.engine.hooks.model_selection import Best
from maskrcnn_ext.engine.hooks.preemption import PREEMPTED, Preemption
from maskrcnn_ext.engine.hooks.progress import make_progress_bar
from maskrcnn_ext.engine.hooks.training_page import TrainingPage, quiet_terminal
from maskrcnn_ext.engine.hooks.writers import start_writers
from maskrcnn_ext.engine.loader_faults import GuardedLoader
from maskrcnn_ext.engine.manifest import finish_manifest, write_manifest
from maskrcnn_ext.engine.resume.hyperparameters import hyperparameters, restore_hyperparameters
from maskrcnn_ext.engine.resume.loader import ResumableLoader
from maskrcnn_ext.engine.resume.state import LoopState, Restore
from maskrcnn_ext.engine.run_length import fit_length, read_began
from maskrcnn_ext.engine.short_runs import find_learning_rate, measure_speed
from maskrcnn_ext.engine.training_data import (
    TrainingData,
    check_evaluator,
    check_resumed_classes,
    read_training_data,
)
from maskrcnn_ext.errors import InputError

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
    with ExitStack() as stack:
        trains = not (args.eval_only or cfg.train.lr_finder.enabled)
        shows_page = cfg.train.progress == "page" and trains and comm.is_main_process()
        console = stack.enter_context(quiet_terminal()) if shows_page else None
        decide_on_main(lambda: stack.enter_context(lock_folder(Path(cfg.train.output_dir))))
        began = read_began(Path(cfg.train.output_dir))
        default_setup(cfg, args)
        stack.enter_context(logged_like_detectron2())
        if args.eval_only:
            _save_config(cfg)
            evaluate_checkpoint(cfg)
            return 0
        unset = [key for key in COUNTS if is_shipped_value(args.config_file, args.opts, key)]
        data = read_training_data(cfg, unset)
        if not cfg.train.lr_finder.enabled:
            resumes = args.resume and bool(history.list_newest_first(Path(cfg.train.output_dir)))
            fit_length(cfg, data, partial(measure_speed, cfg, data), began=began if resumes else None)
        _save_config(cfg)
        return _train(cfg, data, resume=args.resume, console=console)


def _save_config(cfg: DictConfig) -> None:
    if comm.is_main_process():
        try:
            save_config(cfg, Path(cfg.train.output_dir) / "config.yaml")
        except InputError as error:  # Detectron2 also trains with a config that cannot be written
            logger.warning("%s", error)


def _train(cfg: DictConfig, data: TrainingData, *, resume: bool, console: Any) -> int:
    """Trains, or finds the learning rate, between the start and the end of a manifest; returns the exit status."""
    manifest = Path(cfg.train.output_dir) / "manifest.json"
    if comm.is_main_process():
        write_manifest(cfg, manifest, world_size=comm.get_world_size(), classes=data.classes)
    status = "failed"
    try:
        with deterministic(cfg.train.seed) if cfg.train.deterministic else nullcontext():
            if cfg.train.lr_finder.enabled:
                find_learning_rate(cfg, data)
                code = 0
            else:
                code = Training(cfg, resume=resume, data=data, console=console).run()
        status = "preempted" if code == PREEMPTED else "finished"
        return code
    finally:
        if comm.is_main_process():
            finish_manifest(manifest, status)


class Training:
    """A training that is ready to run.

    Attributes:
        trainer: the training loop with all hooks.
        checkpointing: the hook that saves checkpoints.
        preemption: the hook that stops on signals.

    Example::

        Training(load_config("domains/shapes.py", ["train.max_iter=100"]), resume=False).run()
    """

    def __init__(self, cfg: DictConfig, *, resume: bool, data: TrainingData | None = None, console: Any = None) -> None:
        """Builds the model, the loader, the optimizer and the hooks.

        Args:
            cfg: a LazyConfig with model, dataloader, optimizer, lr_multiplier and train, and with all keys of this package.
            resume: whether to resume from the last checkpoint of ``train.output_dir``, if there is one.
            data: of :func:`.training_data.read_training_data`; None to read it.
            console: that shows a :class:`.TrainingPage`; None for Detectron2's lines and the bar.
        """
        settings = cfg.train
        data = read_training_data(cfg) if data is None else data
        will_resume = resume and history.list_newest_first(Path(settings.output_dir))
        model, optimizer = build_model_and_optimizer(cfg, resumes=bool(will_resume))

        # Weights before the loader: the checkpoint contains the data position, and the random state that seeds the samplers.
        checkpointer = make_checkpointer(cfg, model)
        checkpointer.classes = data.classes
        resumes = resume and checkpointer.has_checkpoint()
        names = settings.loading.class_names
        saved = checkpointer.resume_or_load(
            settings.init_checkpoint,
            resume=resume,
            strict=settings.loading.strict,
            class_rows=None if names is None or resumes else ClassRows.from_config(names, _train_set(cfg)),
        )
        stored = Classes.from_state(saved.get("classes"))
        if resumes:
            check_resumed_classes(cfg, stored, data.classes)
        state = LoopState(saved.get("loop") if resumes else None)
        state.before_loader()
        stream = ResumableLoader(build_train_loader(cfg, data))
        state.set_position(stream)
        loader = GuardedLoader(stream, settings.loader_timeout)
        check_evaluator(cfg)
        for warning in preflight(cfg, unwrap_ddp(model), optimizer, resumes=resumes):
            logger.warning("%s", warning)

        guard = (
            DivergenceGuard(settings.output_dir, on_fault=settings.guard.on_fault) if settings.guard.enabled else None
        )
        self.trainer = make_trainer(cfg, model, loader, optimizer, guard)
        self.checkpointing = Checkpointing(
            checkpointer, **settings.checkpointer, collect=state.collect, eval_period=settings.eval_period
        )
        self.preemption = Preemption()
        ema = EMA(settings.ema.decay) if settings.ema.decay is not None else None
        writers = make_writers(cfg, resumes=resumes) if comm.is_main_process() else []
        files = [writer for writer in writers if not isinstance(writer, CommonMetricPrinter)]
        evaluation_hooks = list(make_evaluation_hooks(cfg, model, checkpointer, ema))
        self.trainer.register_hooks(
            [
                guard,
                hooks.IterationTimer(),
                hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier)),
                ema,
                self.checkpointing,
                *evaluation_hooks,
                *instantiate(settings.hooks),
                _make_progress(cfg, console),
                EvaluationWriter(settings.eval_period, files),
                hooks.PeriodicWriter(writers, settings.log_period),
                self.preemption,
                Restore(state, at_evaluation=evaluation_hooks, period=settings.eval_period) if resumes else None,
            ]
        )
        checkpointer.add_checkpointable("trainer", self.trainer)
        self._cfg = cfg
        self._best = next((hook for hook in evaluation_hooks if isinstance(hook, Best)), None)
        self._stream = stream
        self._start = 0
        if resumes:
            wanted = hyperparameters(optimizer)
            with mismatch_explained(f"the checkpoint in {settings.output_dir}"):
                self.trainer.load_state_dict(saved["trainer"])
            self._start = self.trainer.iter + 1  # the checkpoint has the last iteration that finished
            changes = restore_hyperparameters(optimizer, wanted)
            if changes and self._start < settings.max_iter:
                logger.info(
                    "The config has changed since the checkpoint, and training continues with it: %s",
                    short_list(changes),
                )
        self._max_iter = max(settings.max_iter, self._start)
        if resumes and self._start >= settings.max_iter:
            logger.warning(
                "The run in %s is over: it has done %d iterations, and train.max_iter=%d. Only its evaluation runs: set a higher "
                "train.max_iter to train on",
                *(settings.output_dir, self._start, settings.max_iter),
            )

    def run(self) -> int:
        """Trains; returns the exit status."""
        with self.preemption.handled():
            try:
                self.trainer.train(self._start, self._max_iter)
            finally:
                self._stream.close()
            if self.trainer.stop_reason:
                self.checkpointing.save_now()
        if self._cfg.train.best.evaluate and not self.preemption.received:
            self._evaluate_best()
        if self.preemption.received:
            logger.info("The checkpoint is written: run the same command with --resume to continue")
        comm.synchronize()  # no process ends while the main one writes
        return PREEMPTED if self.preemption.received else 0

    def _evaluate_best(self) -> None:
        """Evaluates ``model_best`` if it is not the last model, so that the run's predictions are those of the weights that are used."""
        best = None if self._best is None else self._best.iteration
        # With an average of the weights, the last predictions may be of the other weights.
        if best is None or (best == last_iteration(self.trainer) and self._cfg.train.ema.decay is None):
            return
        logger.info("Evaluating model_best, of iteration %d", best)
        model = self.trainer.model
        make_checkpointer(self._cfg, model).load(str(Path(self._cfg.train.output_dir) / "model_best.pth"))
        evaluate(self._cfg, model)


def make_writers(cfg: DictConfig, *, resumes: bool) -> list[EventWriter]:
    """Returns Detectron2's writers and those of ``train.writers``."""
    settings = cfg.train
    *first, tensorboard = default_writers(settings.output_dir, settings.max_iter)
    # TensorBoard's writer is last, because it clears the images.
    return [*first, *start_writers(settings.writers, settings.output_dir, cfg, resume=resumes), tensorboard]


def _make_progress(cfg: DictConfig, console: Any) -> HookBase | None:
    if console is None:
        return make_progress_bar(cfg.train.progress, batch_size=batch_size(cfg))
    return TrainingPage(console, batch_size=batch_size(cfg))


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
