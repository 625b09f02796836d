"""One page on the terminal: evaluations, warnings and the progress; the log file has everything."""

import logging
import re
import sys

from detectron2.engine.hooks import IterationTimer

from maskrcnn_ext.engine.hooks.training_page import TrainingPage, quiet_terminal
from tests.helpers.terminal import run_on_terminal
from tests.helpers.toy_training import Results, toy_trainer

SCRIPT = """
import sys
from detectron2.engine import hooks
from detectron2.utils.events import CommonMetricPrinter
from detectron2.utils.logger import setup_logger
from tests.engine.hooks.test_training_page import train
from maskrcnn_ext.engine.hooks.training_page import quiet_terminal

print("before")
with quiet_terminal() as console:
    setup_logger(sys.argv[1]).info("the model")
    train(console, hooks.PeriodicWriter([CommonMetricPrinter(8)], period=2))
print("after")
"""
LINES = [
    "before",
    "warning: something [to] know",
    "iteration 4: box AP 20.0, mask AP 10.0",
    "iteration 8: box AP 19.0 (-1.0), mask AP 12.3 (+2.3)",
    "after",
]


def train(console, *writers):
    print("printed")
    for _ in range(2):  # as each reading of the data
        logging.getLogger("detectron2").warning("something [to] know")
    results = [{"bbox/AP": 20.04, "segm/AP": 9.96}, {"bbox/AP": 18.96, "segm/AP": 12.34}]
    page = TrainingPage(console, batch_size=4)
    toy_trainer([IterationTimer(), Results(4, results), page, *writers]).train(0, 8)


def test_without_a_terminal(capsys):
    print("before")
    with quiet_terminal() as console:
        train(console)
    print("after")
    assert capsys.readouterr().out.splitlines() == LINES


def test_a_metric_that_is_not_defined_is_named(capsys):
    with quiet_terminal() as console:
        results = [{"bbox/AP": float("nan"), "segm/AP": 10.0}, {"bbox/AP": 20.0, "segm/AP": float("nan")}]
        toy_trainer([Results(4, results), TrainingPage(console, batch_size=4)]).train(0, 8)
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["iteration 4: no box AP, mask AP 10.0", "iteration 8: box AP 20.0, no mask AP"]


def test_on_a_terminal(tmp_path):
    output = run_on_terminal(SCRIPT, tmp_path / "out")
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", output).replace("\r", "\n")
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    assert [line for line in lines if not line.startswith("training ")] == LINES
    assert any(re.search(r"training .* 8/8 .*loss .* images/s", line) for line in lines)
    log = (tmp_path / "out/log.txt").read_text()
    assert "the model" in log
    assert "total_loss" in log


def test_messages_after_the_page_are_not_written_to_its_closed_file(capsys):
    """As the report of bad images at the end of the process."""
    logger = logging.getLogger("maskrcnn_ext")
    with quiet_terminal():
        logger.addHandler(logging.StreamHandler(sys.stdout))
    logger.warning("later")
    assert "I/O operation on closed file" not in capsys.readouterr().err
