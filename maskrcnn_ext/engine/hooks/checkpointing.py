"""Saves checkpoints during training, at the same iterations and under the same names as Detectron2."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from detectron2.engine import HookBase

from maskrcnn_ext.common.distributed import decide_on_main
from maskrcnn_ext.engine.checkpoint.checkpointer import Checkpointer
from maskrcnn_ext.engine.checkpoint.history import list_numbered
from maskrcnn_ext.engine.hooks.evaluation import is_evaluation_due
from maskrcnn_ext.errors import InputError

logger = logging.getLogger(__name__)


class Checkpointing(HookBase):
    """Saves every `period` iterations and after the last one, like Detectron2's PeriodicCheckpointer, and before evaluations.

    Register it on every rank.

    If there are more than `max_to_keep` files, the oldest are removed, also those that were written before the run was resumed.

    Example::

        train.checkpointer.period=1000 train.checkpointer.max_to_keep=3
    """

    def __init__(
        self,
        checkpointer: Checkpointer,
        *,
        period: int,
        max_to_keep: int | None = None,
        collect: Callable[[], dict[str, Any]] | None = None,
        eval_period: int = 0,
        file_prefix: str = "model",
    ) -> None:
        """Prepares; register this hook before the hooks that evaluate.

        Args:
            checkpointer: saves the model and the trainer.
            period: iterations between checkpoints.
            max_to_keep: number of numbered files to keep; None for all. ``model_final`` is always kept.
            collect: called on every rank before a checkpoint; its result on the main process is saved as well.
            eval_period: iterations between evaluations, before which it saves as well, so that a failed evaluation loses no training.
            file_prefix: prefix of the file names.

        Raises:
            InputError: `period` or `max_to_keep` is below 1.
        """
        if period < 1 or (max_to_keep is not None and max_to_keep < 1):
            raise InputError(
                f"train.checkpointer: period={period}, max_to_keep={max_to_keep}: expected 1 or more (max_to_keep=null keeps all files)"
            )
        self._checkpointer = checkpointer
        self._period = period
        self._max_to_keep = max_to_keep
        self._collect = collect
        self._eval_period = eval_period
        self._prefix = file_prefix
        self._kept: list[Path] = []
        self._saved: int | None = None

    def before_train(self) -> None:
        """Finds the existing files of the run; files of later iterations belong to another run."""
        files = list_numbered(Path(self._checkpointer.save_dir), self._prefix) if self._checkpointer.save_dir else {}
        self._kept = [file for iteration, file in files.items() if iteration < self.trainer.start_iter]

    def after_step(self) -> None:
        """Saves if a checkpoint is due.

        Raises:
            WriteError: it cannot be written; the previous checkpoint is intact.
        """
        iteration = self.trainer.iter
        is_last = iteration >= self.trainer.max_iter - 1
        if (iteration + 1) % self._period == 0 or is_evaluation_due(self.trainer, self._eval_period):
            self._save(iteration, is_final=is_last)
        elif is_last:
            self._save(iteration, is_numbered=False, is_final=True)

    def save_now(self) -> None:
        """Saves after the iteration that has just run, unless it was saved already. Call this on every rank.

        Raises:
            WriteError: as :meth:`after_step`.
        """
        iteration = min(self.trainer.iter, self.trainer.max_iter - 1)
        if self._saved != iteration:
            self._save(iteration)

    def _save(self, iteration: int, *, is_numbered: bool = True, is_final: bool = False) -> None:
        collected = self._collect() if self._collect is not None else {}

        def write() -> None:
            if is_numbered:
                name = f"{self._prefix}_{iteration:07d}"
                self._checkpointer.save(name, iteration=iteration, **collected)
                self._rotate(name)
            if is_final:
                self._checkpointer.save(f"{self._prefix}_final", iteration=iteration, **collected)

        # A failure on the main process stops all ranks.
        decide_on_main(write)
        self._saved = iteration

    def _rotate(self, name: str) -> None:
        newest = Path(self._checkpointer.save_dir) / f"{name}.pth"
        self._kept = [*(file for file in self._kept if file != newest), newest]
        while self._max_to_keep is not None and len(self._kept) > self._max_to_keep:
            oldest = self._kept.pop(0)
            try:
                oldest.unlink(missing_ok=True)
            except OSError as error:
                logger.warning("Cannot remove the old checkpoint %s: %s", oldest, error.strerror)
