"""Measures time, with the sides in turn, and memory, in new processes."""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any

# Seconds between two sides: the threads of a runtime keep spinning for a while after their work.
_PAUSE = 0.2
_CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def add_clock(parser: argparse.ArgumentParser) -> None:
    """Adds the argument of a benchmark whose sides run in this process."""
    parser.add_argument(
        "--clock",
        choices=_CLOCKS,
        default="wall",
        help="wall: seconds of a clock; cpu: seconds of all threads, for a machine with other work on it; best with --threads 1 "
        "(default: %(default)s)",
    )


def measure(
    sides: Mapping[str, Callable[[], Any]], repeats: int, *, pause: float = _PAUSE, clock: str = "wall"
) -> dict[str, list[float]]:
    """Returns the seconds of each side's runs. The sides run in turn, so a busy machine slows all of them.

    Args:
        sides: functions by name; each runs once before, unmeasured.
        repeats: number of rounds.
        pause: seconds between two sides.
        clock: "wall", or "cpu" for the seconds of all threads of this process.

    Example:
        >>> seconds = measure({"sort": lambda: sorted(range(1000))}, repeats=3, pause=0)
        >>> len(seconds["sort"])
        3
    """
    now = _CLOCKS[clock]
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(repeats + 1):
        for name, function in sides.items():
            gc.collect()
            time.sleep(pause)
            start = now()
            result = function()
            elapsed = now() - start
            del result  # frees the memory for the other side
            if number:
                seconds[name].append(elapsed)
    return seconds


def in_new_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Returns the result of a function that runs in a new process; function, arguments and result must be picklable.

    Example:
        ::

            megabytes = in_new_process(memory_growth, function)
    """
    # Unlike those of multiprocessing.Pool, its processes may start others, and it raises an error when they are killed.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def memory_growth(function: Callable[[], Any]) -> float:
    """Returns by how many MB this process grows at most while the function runs; see :func:`in_new_process`."""
    before, peak = memory(function)
    return peak - before


def memory(function: Callable[[], Any]) -> tuple[float, float]:
    """Returns the memory of this process in MB before the function runs, and at most while it runs."""
    import psutil

    process = psutil.Process()
    gc.collect()
    before = peak = process.memory_info().rss
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.001):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    result = function()
    done.set()
    watcher.join()
    peak = max(peak, process.memory_info().rss)
    del result  # only now, so that the result counts
    return before / 1e6, peak / 1e6
