"""A bar on the terminal and lines in the log file; logged and printed text appears above the bar, unbroken."""

import re
import sys

import pytest

from maskrcnn_ext.engine.hooks.progress import ProgressBar, make_progress_bar
from maskrcnn_ext.errors import InputError
from tests.helpers.terminal import run_on_terminal

SCRIPT = """
import logging, os, sys, time
from detectron2.engine import hooks
from detectron2.utils.events import CommonMetricPrinter
from detectron2.utils.logger import setup_logger
from tests.helpers.toy_training import Results, toy_trainer
from maskrcnn_ext.engine.hooks.progress import make_progress_bar

setup_logger(sys.argv[1])
logger = logging.getLogger("detectron2.evaluation")

class Evaluation(Results):
    def at_evaluation(self):
        for index in range(3):
            logger.info("evaluation line %d after iteration %d", index, self.trainer.iter)
        print("printed after", self.trainer.iter)
        if os.fork() == 0:  # a loader's worker
            logger.warning("logged by a worker after %d", self.trainer.iter)
            os._exit(0)
        os.wait()

bar = make_progress_bar(sys.argv[2], batch_size=4)
before = logging.getLogger("detectron2").handlers[0].stream, sys.stdout
writer = hooks.PeriodicWriter([CommonMetricPrinter(8)], period=2)
trainer = toy_trainer([hooks.IterationTimer(), Evaluation(4, []), *([bar] if bar else []), writer])
if "fail" in sys.argv:
    run_step = trainer.run_step
    trainer.run_step = lambda: run_step() if trainer.iter < 5 else 1 / 0
try:
    trainer.train(0, 8)
except ZeroDivisionError:
    pass
assert (logging.getLogger("detectron2").handlers[0].stream, sys.stdout) == before
print("the end")
"""


def on_terminal(tmp_path, *arguments):
    """Runs the script on a terminal of 100 columns; returns its output with control sequences, and the log file."""
    output = tmp_path / "out"
    return run_on_terminal(SCRIPT, output, *arguments), (output / "log.txt").read_text()


def lines(shown):
    """Returns what stays on the screen: of each line, the text after the last carriage return."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    return [line.rsplit("\r", 1)[-1] for line in text.replace("\r\n", "\n").split("\n")]


def test_a_bar_on_the_terminal_and_lines_in_the_file(tmp_path):
    shown, log = on_terminal(tmp_path, "auto")
    assert re.search(r"8/8 .*loss [\d.]+ .*memory [\d.]+ GiB .*images/s .*0:00:00", lines(shown)[-3] + lines(shown)[-2])
    assert "total_loss" not in shown, "the bar replaces the lines"
    assert [int(found) for found in re.findall(r"iter: (\d+)  total_loss", log)] == [1, 3, 5, 7]
    whole = lines(shown)
    for iteration in (3, 8):
        for index in range(3):
            ending = f"evaluation line {index} after iteration {iteration}"
            assert sum(line.endswith(ending) and line.startswith("[") for line in whole) == 1, shown
        assert f"printed after {iteration}" in whole
        worker = [line for line in whole if f"logged by a worker after {iteration}" in line]
        assert len(worker) == 1
        assert worker[0].startswith("WARNING [")
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h"), "the cursor comes back"
    assert "the end" in whole


def test_a_failed_run_restores_the_terminal(tmp_path):
    shown, _ = on_terminal(tmp_path, "bar", "fail")
    assert "ZeroDivisionError" in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") > 0


def test_plain_mode_prints_lines(tmp_path):
    shown, log = on_terminal(tmp_path, "plain")
    assert len(re.findall(r"iter: \d+  total_loss", shown)) == len(re.findall(r"iter: \d+  total_loss", log)) == 4
    assert "images/s" not in shown


class Terminal:
    def isatty(self):
        return True


def test_no_bar_without_a_terminal():
    assert make_progress_bar("bar", batch_size=1) is None, "pytest captures the output"


def test_a_dumb_terminal_has_no_bar(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("TERM", "dumb")
    assert make_progress_bar("auto", batch_size=1) is None
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(make_progress_bar("auto", batch_size=1), ProgressBar)


def test_an_unknown_mode():
    with pytest.raises(InputError, match=r"train.progress=fancy: expected auto, bar, plain or page"):
        make_progress_bar("fancy", batch_size=1)
