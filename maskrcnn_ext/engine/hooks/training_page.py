"""Shows a training on one page of the terminal: a line of progress, and a line for each evaluation. All else goes to ``log.txt``."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from detectron2.engine import HookBase

from maskrcnn_ext.common.progress import progress_bar

METRICS = {"bbox/AP": "box AP", "segm/AP": "mask AP", "keypoints/AP": "keypoint AP"}
_LOGGERS = ("detectron2", "fvcore", "maskrcnn_ext")
_WINDOW = 20  # iterations whose median is shown
_SECONDS = 30.0  # between two lines of progress where the output is no terminal


@contextlib.contextmanager
def quiet_terminal() -> Iterator[Any]:
    """Keeps prints and messages off the terminal, except for warnings; yields rich's console on standard output.

    Enter it before Detectron2's ``setup_logger``, whose handler then writes nowhere; the log file is complete.
    """
    from rich.console import Console

    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    warnings = _WarningsOn(console)
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    toolkit = logging.getLogger("torch.utils.cpp_extension")  # warns on every machine without CUDA
    level = toolkit.level
    toolkit.setLevel(logging.ERROR)
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        for logger in loggers:
            logger.addHandler(warnings)
        try:
            yield console
        finally:
            for logger in loggers:
                for handler in list(logger.handlers):
                    # Lines that are logged at the exit of the process, after the page, must not be written to a closed file.
                    if handler is warnings or getattr(handler, "stream", None) is nowhere:
                        logger.removeHandler(handler)
            toolkit.setLevel(level)


class _WarningsOn(logging.Handler):
    """Prints warnings and errors as lines above the progress, each text once: data is read for training and for each evaluation."""

    def __init__(self, console: Any) -> None:
        super().__init__(logging.WARNING)
        self._console = console
        self._printed: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        line = f"{record.levelname.lower()}: {record.getMessage()}"
        if line not in self._printed:
            self._printed.add(line)
            self._console.print(line, markup=False)


class TrainingPage(HookBase):
    """The lines of a training on a console; register it after the hooks that evaluate.

    Example::

        train.progress=page
    """

    def __init__(self, console: Any, *, batch_size: int) -> None:
        """Prepares.

        Args:
            console: of :func:`quiet_terminal`.
            batch_size: images per iteration, of all processes together.
        """
        self._console = console
        self._batch_size = batch_size
        self._bar: Any = None
        self._task: Any = None
        self._last_line = time.monotonic()
        self._values: dict[str, float] = {}
        self._evaluated = -1

    def before_train(self) -> None:
        """Shows the progress."""
        if self._console.is_terminal:
            self._bar = progress_bar(self._console)
            self._task = self._bar.add_task(
                "training", total=self.trainer.max_iter, completed=self.trainer.start_iter, figures=""
            )
            self._bar.start()

    def after_step(self) -> None:
        """Moves the progress, and adds a line if the model was evaluated."""
        done = self.trainer.iter + 1
        self._show_evaluation(done)
        if self._bar is not None:
            self._bar.update(self._task, completed=done, figures=self._figures(), refresh=True)
        elif time.monotonic() - self._last_line >= _SECONDS:
            self._last_line = time.monotonic()
            self._print(f"iteration {done} of {self.trainer.max_iter}  {self._figures()}")

    def after_train(self) -> None:
        """Adds the line of the last evaluation, and leaves the progress as it is."""
        if self._bar is not None:
            self._bar.stop()
        self._show_evaluation(min(self.trainer.iter + 1, self.trainer.max_iter))

    def _figures(self) -> str:
        histories = self.trainer.storage.histories()
        figures = []
        if "total_loss" in histories:
            figures.append(f"loss {histories['total_loss'].median(_WINDOW):.4g}")
        if "time" in histories:
            figures.append(f"{self._batch_size / histories['time'].median(_WINDOW):.3g} images/s")
        return "  ".join(figures)

    def _show_evaluation(self, done: int) -> None:
        latest = self.trainer.storage.latest()
        found = {name: latest[name] for name in METRICS if name in latest}
        newest = max((iteration for _, iteration in found.values()), default=-1)
        if newest <= self._evaluated:
            return
        self._evaluated = newest
        texts = []
        for name, (value, _) in found.items():
            if math.isnan(value):  # no object to validate on
                texts.append(f"no {METRICS[name]}")
                continue
            value = round(value, 1)  # so that the change is that of the values shown
            change = f" ({value - self._values[name]:+.1f})" if name in self._values else ""
            texts.append(f"{METRICS[name]} {value:.1f}{change}")
            self._values[name] = value
        self._print(f"iteration {done}: {', '.join(texts)}")

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False)
