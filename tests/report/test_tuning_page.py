"""The page of a tuning shows each trial, what mattered, and AP by each quantity."""

import re

import pytest

from maskrcnn_ext.report.tuning_page import TrialRow, Varied, _progress, _slice, write_tuning_page

VARIED = [Varied("rate", log=True), Varied("loss", ("bce", "dice"))]
TRIALS = [
    TrialRow("0", {"rate": 0.001, "loss": "bce"}, 20.0),
    TrialRow("1", {"rate": 0.01, "loss": "dice"}, 30.0, pruned=True),
    TrialRow("2", {"rate": 0.1, "loss": "dice"}, None, failure="out of <memory>"),
    TrialRow("3", {"rate": 0.002, "loss": "dice"}, 25.0),
]


def test_the_page(tmp_path):
    page = write_tuning_page(
        VARIED,
        TRIALS,
        {"rate": 0.9, "loss": 0.1},
        tmp_path / "page.html",
        metric="segm/AP",
        title="tune",
        best="3",
        overrides=["optimizer.lr=0.002"],
    )
    text = page.read_text()
    assert "optimizer.lr=0.002" in text
    assert "What mattered" in text
    assert "ended early" in text
    assert "out of &lt;memory&gt;" in text
    for title in ("segm/AP by trial", "segm/AP by rate", "segm/AP by loss"):
        assert f"<h3>{title}</h3>" in text
    assert not re.search(r"(src|href)=.https?:", text)


def test_without_a_change_and_without_importances(tmp_path):
    page = write_tuning_page(
        VARIED, TRIALS[:1], {}, tmp_path / "page.html", metric="segm/AP", title="tune", best="0", overrides=[]
    )
    assert "which changes nothing" in page.read_text()
    assert "What mattered" not in page.read_text()


def test_the_best_so_far_leaves_out_trials_that_were_ended():
    _, (_, best) = _progress(TRIALS)
    assert best == [(0.0, 20.0), (1.0, 20.0), (3.0, 25.0)]


def test_points_of_a_slice_are_not_joined():
    chart = _slice(VARIED[1], TRIALS, "segm/AP")
    assert chart.xlabel == "0: bce, 1: dice"
    whole, ended = chart.lines
    assert "L" not in whole.path
    assert len(whole.dots) == 2
    assert len(ended.dots) == 1
    ticks = {label: place for place, label in _slice(VARIED[0], TRIALS, "segm/AP").x_ticks}
    assert ticks["0.01"] - ticks["0.005"] == pytest.approx(ticks["0.002"] - ticks["0.001"])
