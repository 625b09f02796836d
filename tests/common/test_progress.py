"""Progress is a bar on a terminal and a line every half minute in a log."""

import os
import pty
import subprocess
import sys

import pytest

from maskrcnn_ext.common import progress
from maskrcnn_ext.common.progress import Progress, track


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


def test_an_unknown_total_is_left_out(clock, capsys):
    with Progress(None) as shown:
        clock.seconds = 31
        shown.step(10)
    assert capsys.readouterr().err == "10 images, 3.1 s each\n"


def test_short_work_shows_nothing_and_track_yields_everything(capsys):
    assert list(track(iter("abc"), total=3)) == ["a", "b", "c"]
    assert list(track([])) == []
    assert capsys.readouterr() == ("", "")


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
    for _ in range(4):
        shown.step(failed=1)
"""


def test_a_terminal_gets_a_bar_that_ends_complete():
    shown = run_on_terminal(SCRIPT)
    assert "reading [a]" in shown
    assert "images/s, 1 failed" in shown
    assert "4/4" in shown.rpartition("3/4")[2]
