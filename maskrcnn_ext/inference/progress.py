"""How far a long job is: a bar on a terminal, elsewhere (a log file, a job of SLURM) a line every half minute."""

from __future__ import annotations

import sys
import time
from typing import Any

_SECONDS = 30.0


class Progress:
    """Shows on stderr how many images are done. A context manager."""

    def __init__(self, total: int | None) -> None:
        """Begins.

        Args:
            total: how many there are; None where nobody knows.
        """
        self._total = total
        self._done = 0
        self._begun = self._told = time.monotonic()
        self._bar: Any = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, unit="image", dynamic_ncols=True)

    def step(self, failed: int, count: int = 1) -> None:
        """Counts images.

        Args:
            failed: how many have failed so far.
            count: how many are done since the last step.
        """
        self._done += count
        if self._bar is not None:
            if failed:
                self._bar.set_postfix(failed=failed, refresh=False)
            self._bar.update(count)
        elif time.monotonic() - self._told >= _SECONDS:
            self._told = time.monotonic()
            of = f" of {self._total}" if self._total is not None else ""
            told = f", {failed} failed" if failed else ""
            speed = (self._told - self._begun) / self._done
            print(f"{self._done}{of} images{told}, {speed:.2g} s each", file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
