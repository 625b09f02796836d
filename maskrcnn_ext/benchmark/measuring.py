"""What every benchmark measures with: sides that take turns, and memory in processes of their own."""

from __future__ import annotations

import gc
import multiprocessing
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any

# Between two sides: the threads of a runtime go on spinning for a while after their work.
_PAUSE = 0.2


def measure(sides: Mapping[str, Callable[[], Any]], repeats: int, *, pause: float = _PAUSE) -> dict[str, list[float]]:
    """Returns the seconds of each side's runs; the sides take turns, so that a busy machine slows all of them.

    Args:
        sides: what to run, by name. Each runs once before, unmeasured.
        repeats: rounds.
        pause: seconds between two sides.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(repeats + 1):
        for name, function in sides.items():
            gc.collect()
            time.sleep(pause)
            start = time.perf_counter()
            result = function()
            elapsed = time.perf_counter() - start
            del result  # before the other side needs the memory
            if number:
                seconds[name].append(elapsed)
    return seconds


def in_new_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Returns a function's result, of a process that has done nothing else; both must be picklable."""
    # Unlike those of multiprocessing.Pool, its processes may start others, and are missed when they are killed.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def memory_growth(function: Callable[[], Any]) -> float:
    """Returns by how many megabytes this process grows at most while the function runs; see :func:`in_new_process`."""
    before, peak = memory(function)
    return peak - before


def memory(function: Callable[[], Any]) -> tuple[float, float]:
    """Returns the megabytes that this process holds before the function runs, and those that it holds at most while it runs."""
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
    del result  # until here, so that what is returned counts
    return before / 1e6, peak / 1e6
