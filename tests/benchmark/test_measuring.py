"""Times with the sides in turn, and memory of new processes."""

import mmap
import os
import threading

from maskrcnn_ext.benchmark.measuring import in_new_process, measure, memory_growth


def test_new_processes_can_start_others():
    assert in_new_process(in_new_process, os.getpid) != os.getpid()


def test_the_sides_take_turns_after_an_unmeasured_round():
    order = []
    seconds = measure({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2, pause=0)
    assert order == ["a", "b"] * 3
    assert [len(times) for times in seconds.values()] == [2, 2]


def test_the_cpu_clock_does_not_count_waiting():
    sides = {"wait": lambda: threading.Event().wait(0.05)}
    (waited,) = measure(sides, 1, pause=0)["wait"]
    (worked,) = measure(sides, 1, pause=0, clock="cpu")["wait"]
    assert worked < 0.02 < waited


def new_pages(size):
    """Memory that the system must provide, independently of memory that this process has freed before."""
    memory = mmap.mmap(-1, size)
    for start in range(0, size, mmap.PAGESIZE):
        memory[start] = 1
    return memory


def test_memory_is_the_peak_while_the_function_runs():
    def function():
        with new_pages(80_000_000) as held:
            for _ in range(10):
                held.find(b"2")  # for longer than the watcher waits
        return new_pages(30_000_000)

    assert 75 < memory_growth(function) < 110
