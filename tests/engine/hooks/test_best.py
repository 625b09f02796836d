"""model_best is that of the best evaluation of the whole run, resumed or not."""

import math

import pytest
from detectron2.checkpoint import DetectionCheckpointer

from maskrcnn_ext.engine.checkpoint.checkpointer import Checkpointer
from maskrcnn_ext.engine.hooks.best import Best
from maskrcnn_ext.errors import InputError
from tests.helpers.toy_training import Results, Saved, toy_trainer


def run(values, *, start=0, state=None, mode="max", metric="segm/AP", results=None):
    """One evaluation an iteration, the last one after training; returns what was saved and the state at the end."""
    saved = Saved()
    best = Best(1, saved, metric=metric, mode=mode)
    trainer = toy_trainer([Results(1, results or [{"segm/AP": value} for value in values]), best])
    saved.trainer = trainer
    if state:
        best.load_state_dict(state)
    trainer.train(start, start + len(results or values))
    return saved.files, best.state_dict()


def test_the_best_survives_a_resume():
    files, state = run([10, 50, 20, 20])
    assert [(name, iteration) for name, iteration, _ in files] == [("model_best", 0), ("model_best", 1)]
    files, state = run([5, 6, 7], start=4, state=state)
    assert files == []
    assert (state["value"], state["iteration"]) == (50, 1)
    files, state = run([51], start=7, state=state)
    assert [file[1] for file in files] == [7]


def test_the_file_knows_its_own_metric():
    files, _ = run([10, 50, 20])
    assert files[-1][2]["hooks"]["Best"]["value"] == 50


@pytest.mark.parametrize(
    ("mode", "values", "expected"),
    [
        ("max", [1, 1, 3, 2], [0, 2]),
        ("min", [3, 3, 1, 2], [0, 2]),
        ("max", [math.nan, 1, math.inf, 2, math.nan], [1, 3]),
        ("min", [math.nan, -math.inf, 2, 1], [2, 3]),
        ("max", [math.nan, math.nan], []),
    ],
)
def test_only_what_is_better_and_finite_is_saved(mode, values, expected):
    files, _ = run(values, mode=mode)
    assert [iteration for _, iteration, _ in files] == expected


def test_a_metric_that_is_not_there_is_a_mistake_that_names_the_nearest():
    with pytest.raises(InputError, match=r"train.best.metric=segm/ap: .* did you mean segm/AP.*\?"):
        run([], metric="segm/ap", results=[{"segm/AP": 1, "segm/APs": 2, "bbox/AP": 1}] * 2)
    with pytest.raises(InputError, match=r"did you mean .*bbox/AP"):
        run([], metric="segm/AP", results=[{"bbox/AP": 1.0}] * 2)


def test_an_evaluator_that_found_no_object_gives_no_masks():
    """Detectron2's, without a single detection: bbox/AP is nan and there is no segm/AP."""
    nothing = {"bbox/AP": math.nan, "bbox/AP50": math.nan, "validation_loss/total_loss": 3.0}
    files, _ = run([], results=[nothing, {"bbox/AP": 1.0, "segm/AP": 2.0}, nothing])
    assert [iteration for _, iteration, _ in files] == [1]


def test_a_value_from_before_does_not_count_again(caplog):
    files, _ = run([], results=[{"segm/AP": 1.0}, {"bbox/AP": 9.0}])
    assert len(files) == 1
    assert "gave no segm/AP" in caplog.text


def test_the_state_of_another_metric_is_dropped():
    _, state = run([50])
    files, _ = run([1], start=1, state=state, metric="bbox/AP", results=[{"bbox/AP": 1}])
    assert len(files) == 1


def test_doing_an_evaluation_again_changes_nothing():
    saved = Saved()
    best = Best(1, saved, metric="m")
    trainer = toy_trainer([Results(1, [{"m": 1}, {"m": 2}]), best])
    once = best.at_evaluation
    best.at_evaluation = lambda: [once() for _ in range(3)]
    trainer.train(0, 2)
    assert [iteration for _, iteration, _ in saved.files] == [0, 1]


@pytest.mark.parametrize("kind", [DetectionCheckpointer, Checkpointer])
def test_with_checkpointers(kind, tmp_path):
    trainer = toy_trainer()
    checkpointer = kind(trainer.model, str(tmp_path), trainer=trainer)
    trainer.register_hooks([Results(2, [{"m": 2.0}, {"m": 1.0}]), Best(2, checkpointer, metric="m")])
    trainer.train(0, 4)
    again = toy_trainer()
    best = Best(2, checkpointer, metric="m")
    again.register_hooks([best])
    extra = kind(again.model, str(tmp_path), trainer=again).load(str(tmp_path / "model_best.pth"))
    assert extra["iteration"] == 1
    assert (best.value, best.iteration) == (2.0, 1)


def test_another_mode_is_a_mistake():
    with pytest.raises(InputError, match=r"train.best.mode=Max: expected max or min"):
        Best(1, Saved(), metric="m", mode="Max")
