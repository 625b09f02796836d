"""Shows the progress of long work on stderr: a bar on a terminal, a line every half minute in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any, TypeVar

T = TypeVar("T")

_LOG_SECONDS = 30.0
_REDRAW_SECONDS = 0.1
_WIDTH_FOR_BAR = 80  # columns of a terminal that shows a bar


class Progress:
    """Shows how much of a job is done. A context manager. Shows nothing for work shorter than a second.

    Example:
        >>> with Progress(total=2, description="reading") as progress:
        ...     progress.step()
        ...     progress.step(failed=1)
    """

    def __init__(self, total: int | None, *, description: str = "", unit: str = "image") -> None:
        """Starts the clock.

        Args:
            total: number of items; None if it is unknown, as for a camera.
            description: the action, such as ``"reading"``.
            unit: the noun for one item.
        """
        self._total, self._description, self._unit = total, description, unit
        self.done = 0  # finished items
        self._failed = 0
        self._figures = ""
        self._start = self._last_line = time.monotonic()
        self._last_draw = 0.0
        self._bar: Any = None
        self._task: Any = None

    def step(self, count: int = 1, *, failed: int = 0, figures: str = "") -> None:
        """Adds finished items.

        Args:
            count: items finished since the last step, failed ones included.
            failed: number of all items that have failed so far.
            figures: short text to show until the next step, such as ``"loss 1.93"``.
        """
        self.done += count
        self._failed, self._figures = failed, figures
        now = time.monotonic()
        if sys.stderr.isatty():
            if now - self._start > 1 and now - self._last_draw > _REDRAW_SECONDS:
                self._last_draw = now
                self._draw()
        elif now - self._last_line >= _LOG_SECONDS:
            self._last_line = now
            print(self._log_line(now), file=sys.stderr, flush=True)

    def _log_line(self, now: float) -> str:
        of = f" of {self._total}" if self._total is not None else ""
        before = f"{self._description}: " if self._description else ""
        pace = f"{(now - self._start) / max(self.done, 1):.2g} s each"
        return f"{before}{self.done}{of} {self._unit}s{self._failed_and_figures()}, {pace}"

    def _failed_and_figures(self) -> str:
        failed = f", {self._failed} failed" if self._failed else ""
        return failed + (f", {self._figures}" if self._figures else "")

    def _draw(self) -> None:
        if self._bar is None:
            self._bar = progress_bar(sys.stderr)
            self._task = self._bar.add_task(self._description, total=self._total, figures="")
            self._bar.start()
        rate = self.done / (time.monotonic() - self._start)
        figures = f"{rate:.3g} {self._unit}s/s{self._failed_and_figures()}"
        self._bar.update(self._task, completed=self.done, figures=figures, refresh=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._draw()
            self._bar.stop()


def track(items: Iterable[T], *, description: str = "", unit: str = "image", total: int | None = None) -> Iterator[T]:
    """Yields `items` and shows the progress through them.

    Args:
        items: the items to yield.
        description: the action, such as ``"copying"``.
        unit: the noun for one item.
        total: number of items, for an iterator without a length.

    Example:
        >>> list(track([1, 2, 3], description="counting", unit="number"))
        [1, 2, 3]
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Progress(total, description=description, unit=unit) as progress:
        for item in items:
            yield item
            progress.step()


def progress_bar(stream: Any) -> Any:
    """Returns a ``rich.progress.Progress`` with the columns of this package: bar, count, time left and free text.

    Only ``update(..., refresh=True)`` redraws it. A thread that redraws could hold the console's lock while a data loader forks a
    worker, which would then hang. Tasks need the field ``figures``. It is one line: on a narrow terminal the texts are cut, and the bar is
    left out.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn
    from rich.table import Column
    from rich.text import Text

    class CutText(TextColumn):
        """A text that becomes shorter before other columns do, and never continues on another line."""

        def __init__(self, text: str) -> None:
            super().__init__(text, markup=False, table_column=Column(no_wrap=False))

        def render(self, task: Task) -> Text:
            return Text(super().render(task).plain, no_wrap=True, overflow="ellipsis")

    console = stream if isinstance(stream, Console) else Console(file=stream)
    whole = Column(no_wrap=True)
    return Progress(
        CutText("{task.description}"),
        *([BarColumn(bar_width=20)] if console.width >= _WIDTH_FOR_BAR else []),
        MofNCompleteColumn(table_column=whole),
        CutText("{task.fields[figures]}"),
        TimeRemainingColumn(table_column=whole.copy()),
        console=console,
        auto_refresh=False,
        redirect_stdout=False,
        redirect_stderr=False,
    )
