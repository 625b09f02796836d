"""Progress is a bar on a terminal and a line every half minute in a log."""

import io
import os
import pty
import re
import subprocess
import sys

import pytest
from rich.console import Console

from maskrcnn_ext.common import progress
from maskrcnn_ext.common.progress import Progress, progress_bar, track


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when a test says so."""

    class Clock:
        seconds = 0.0

        def monotonic(self) -> float:
            return self.seconds

    fake = Clock()
    monkeypatch.setattr(progress, "time", fake)
    return fake


def test_a_log_gets_a_line_every_half_minute(clock, capsys):
    with Progress(100, description="reading", unit="file") as shown:
        for _ in range(62):
            clock.seconds += 1
            shown.step(failed=2)
    assert capsys.readouterr().err.splitlines() == [
        "reading: 30 of 100 files, 2 failed, 1 s each",
        "reading: 60 of 100 files, 2 failed, 1 s each",
    ]


def test_a_log_line_shows_the_figures_of_the_last_step_only(clock, capsys):
    with Progress(100, description="training", unit="iteration") as shown:
        for seconds, figures in [(31, "loss 1.93"), (61, "loss 0.87"), (91, "")]:
            clock.seconds = seconds
            shown.step(31, figures=figures)
    assert [line.rpartition(",")[0] for line in capsys.readouterr().err.splitlines()] == [
        "training: 31 of 100 iterations, loss 1.93",
        "training: 62 of 100 iterations, loss 0.87",
        "training: 93 of 100 iterations",
    ]


def test_an_unknown_total_is_left_out(clock, capsys):
    with Progress(None) as shown:
        clock.seconds = 31
        shown.step(10)
    assert capsys.readouterr().err == "10 images, 3.1 s each\n"


def test_short_work_shows_nothing_and_track_yields_everything(capsys):
    assert list(track(iter("abc"), total=3)) == ["a", "b", "c"]
    assert list(track([])) == []
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("width", [40, 60, 80, 100, 149, 200])
def test_a_bar_is_one_line_with_the_whole_count_and_time(width):
    text = io.StringIO()
    bar = progress_bar(Console(file=text, width=width, force_terminal=True, color_system=None))
    description = "comparing the images with those of the other set"
    task = bar.add_task(description, total=123456, figures="1.23e+03 images/s, 12 failed, loss 1.93")
    with bar:
        bar.update(task, completed=61234, refresh=True)
    last = [line for line in re.split("[\r\n]", text.getvalue()) if "61234" in line][-1].replace("\x1b[2K", "")
    assert len(last) <= width
    assert " 61234/123456 " in last
    assert "-:--:--" in last
    assert "\x1b[1A" not in text.getvalue()  # moves up, over a second line
    assert (description in last) == (width >= 149)


def run_on_terminal(code: str) -> str:
    main, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen([sys.executable, "-c", code], stderr=terminal, env=environment)
    os.close(terminal)
    shown = b""
    while True:
        try:
            piece = os.read(main, 4096)
        except OSError:  # Linux: the other end is closed
            break
        if not piece:
            break
        shown += piece
    os.close(main)
    assert process.wait() == 0
    return shown.decode()


SCRIPT = """
import itertools
from maskrcnn_ext.common import progress
seconds = itertools.count()
progress.time = type("Clock", (), {"monotonic": staticmethod(lambda: next(seconds))})
with progress.Progress(4, description="reading [a]") as shown:
    for number in range(4):
        shown.step(failed=1, figures=f"loss {number}.93 [b]")
"""


def test_a_terminal_gets_a_bar_that_ends_complete():
    shown = run_on_terminal(SCRIPT)
    assert "reading [a]" in shown
    _, _, last = shown.rpartition("3/4")
    assert "images/s, 1 failed, loss 2.93 [b]" in shown
    assert "4/4" in last
    assert "images/s, 1 failed, loss 3.93 [b]" in last
