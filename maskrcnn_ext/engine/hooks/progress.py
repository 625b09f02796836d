"""Shows the progress of training as one live line on the terminal. The log file keeps Detectron2's lines."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import Any, TextIO

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm

from maskrcnn_ext.common.progress import progress_bar
from maskrcnn_ext.errors import InputError

# The logger of Detectron2's CommonMetricPrinter, whose lines repeat what the bar shows.
_PRINTER = "detectron2.utils.events"
_WINDOW = 20  # number of iterations whose median is shown, as in the log


def make_progress_bar(mode: str, *, batch_size: int) -> ProgressBar | None:
    """Returns the hook that shows a progress bar; None with mode "plain", outside the main process, or without a terminal.

    Args:
        mode: ``train.progress``: "auto", "bar", "plain" or "page", which is "auto" where there is no page.
        batch_size: images per iteration, of all processes together.

    Raises:
        InputError: `mode` is invalid.
    """
    if mode not in ("auto", "bar", "plain", "page"):
        raise InputError(f"train.progress={mode}: expected auto, bar, plain or page")
    if mode == "plain" or not comm.is_main_process() or not sys.stdout.isatty():
        return None
    from rich.console import Console

    console = Console(file=sys.stdout)
    return None if console.is_dumb_terminal else ProgressBar(console, batch_size=batch_size)


class ProgressBar(HookBase):
    """A bar with loss, learning rate, memory, images per second and the remaining time.

    While it is shown, output of ``logging`` and ``print`` appears above it, and Detectron2's lines of losses go to the log file only.

    Example::

        train.progress=bar
    """

    def __init__(self, console: Any, *, batch_size: int) -> None:
        """Prepares; register this hook after all others except the writers.

        Args:
            console: rich's console on the terminal.
            batch_size: images per iteration, of all processes together.
        """
        self._console = console
        self._batch_size = batch_size
        self._progress: Any = None
        self._shown = contextlib.ExitStack()

    def before_train(self) -> None:
        """Shows the bar."""
        self._progress = progress_bar(self._console)
        trainer = self.trainer
        self._task = self._progress.add_task("", total=trainer.max_iter, completed=trainer.start_iter, figures="")
        self._shown.enter_context(self._progress)
        handlers = _terminal_handlers()
        above = {stream: _StreamAboveBar(self._console, stream) for stream in (sys.stdout, sys.stderr)}
        self._shown.enter_context(contextlib.redirect_stdout(above[sys.stdout]))
        self._shown.enter_context(contextlib.redirect_stderr(above[sys.stderr]))
        for handler in handlers:
            stream = handler.setStream(above[handler.stream])
            self._shown.callback(handler.setStream, stream)
            handler.addFilter(_is_not_on_bar)
            self._shown.callback(handler.removeFilter, _is_not_on_bar)

    def after_step(self) -> None:
        """Moves the bar."""
        figures = "  ".join(self._figures())
        self._progress.update(self._task, completed=self.trainer.iter + 1, figures=figures, refresh=True)

    def after_train(self) -> None:
        """Leaves the last state of the bar on the terminal and restores the output streams."""
        self._shown.close()

    def _figures(self) -> list[str]:
        figures = []
        loss, rate, seconds = self._median("total_loss"), self._median("lr"), self._median("time")
        if loss is not None:
            figures.append(f"loss {loss:.4g}")
        if rate is not None:
            figures.append(f"lr {rate:.2g}")
        if (memory := _peak_memory()) is not None:
            figures.append(f"memory {memory / 2**30:.1f} GiB")
        if seconds:
            figures.append(f"{self._batch_size / seconds:.3g} images/s")
        return figures

    def _median(self, name: str) -> float | None:
        history = self.trainer.storage.histories().get(name)
        if history is None:
            return None
        return float(history.latest() if name == "lr" else history.median(_WINDOW))


class _StreamAboveBar:
    """A stream whose lines appear above the bar. A forked worker must not draw the bar, so its lines overwrite it."""

    def __init__(self, console: Any, stream: TextIO) -> None:
        from rich.file_proxy import FileProxy

        self._proxy = FileProxy(console, stream)
        self._stream = stream
        self._process = os.getpid()
        self._starts_line = True

    def write(self, text: str) -> int:
        if os.getpid() == self._process:
            return int(self._proxy.write(text))
        if self._starts_line:
            self._stream.write("\r\x1b[2K")  # the bar is one line; it is drawn again after the next step
        self._starts_line = text.endswith("\n")
        return self._stream.write(text)

    def flush(self) -> None:
        (self._proxy if os.getpid() == self._process else self._stream).flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _peak_memory() -> int | None:
    """Returns the peak memory in bytes: of torch on the CUDA device, or of this process without CUDA; None if it is unknown."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _is_not_on_bar(record: logging.LogRecord) -> bool:
    return record.name != _PRINTER


def _terminal_handlers() -> list[Any]:
    """Returns the handlers of all loggers that write to this process's standard output or error."""
    loggers = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    handlers = {handler: None for found in loggers if isinstance(found, logging.Logger) for handler in found.handlers}
    streams = (sys.stdout, sys.stderr)
    return [h for h in handlers if isinstance(h, logging.StreamHandler) and h.stream in streams]
