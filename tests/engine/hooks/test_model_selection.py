"""Best keeps the best weights of the whole run and EarlyStopping ends it; both survive a resume."""

import math

import pytest
from detectron2.checkpoint import DetectionCheckpointer

from maskrcnn_ext.engine.checkpoint.checkpointer import Checkpointer
from maskrcnn_ext.engine.hooks.model_selection import Best, EarlyStopping, is_better
from maskrcnn_ext.errors import InputError
from tests.helpers.toy_training import Results, Saved, toy_trainer


def run_best(values, *, start=0, state=None, mode="max", metric="segm/AP", results=None):
    """Evaluates in every iteration, the last one after training; returns the saved files and the final state."""
    saved = Saved()
    best = Best(1, saved, metric=metric, mode=mode)
    trainer = toy_trainer([Results(1, results or [{"segm/AP": value} for value in values]), best])
    saved.trainer = trainer
    if state:
        best.load_state_dict(state)
    trainer.train(start, start + len(results or values))
    return saved.files, best.state_dict()


def test_the_best_survives_a_resume():
    files, state = run_best([10, 50, 20, 20])
    assert [(name, iteration) for name, iteration, _ in files] == [("model_best", 0), ("model_best", 1)]
    files, state = run_best([5, 6, 7], start=4, state=state)
    assert files == []
    assert (state["value"], state["iteration"]) == (50, 1)
    files, state = run_best([51], start=7, state=state)
    assert [file[1] for file in files] == [7]


def test_the_file_contains_its_own_metric():
    files, _ = run_best([10, 50, 20])
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
def test_only_better_and_finite_values_are_saved(mode, values, expected):
    files, _ = run_best(values, mode=mode)
    assert [iteration for _, iteration, _ in files] == expected


def test_an_unknown_metric_names_the_nearest():
    with pytest.raises(InputError, match=r"train.best.metric=segm/ap: .* did you mean segm/AP.*\?"):
        run_best([], metric="segm/ap", results=[{"segm/AP": 1, "segm/APs": 2, "bbox/AP": 1}] * 2)
    with pytest.raises(InputError, match=r"did you mean .*bbox/AP"):
        run_best([], metric="segm/AP", results=[{"bbox/AP": 1.0}] * 2)


def test_an_evaluation_without_detections_has_no_mask_metrics():
    """Without a detection, Detectron2's evaluator returns bbox/AP as NaN and no segm/AP."""
    nothing = {"bbox/AP": math.nan, "bbox/AP50": math.nan, "validation_loss/total_loss": 3.0}
    files, _ = run_best([], results=[nothing, {"bbox/AP": 1.0, "segm/AP": 2.0}, nothing])
    assert [iteration for _, iteration, _ in files] == [1]


def test_an_old_value_is_not_counted_again(caplog):
    files, _ = run_best([], results=[{"segm/AP": 1.0}, {"bbox/AP": 9.0}])
    assert len(files) == 1
    assert "has no segm/AP" in caplog.text


def test_the_state_of_another_metric_is_dropped():
    _, state = run_best([50])
    files, _ = run_best([1], start=1, state=state, metric="bbox/AP", results=[{"bbox/AP": 1}])
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


def test_an_unknown_mode_of_best():
    with pytest.raises(InputError, match=r"train.best.mode=Max: expected max or min"):
        Best(1, Saved(), metric="m", mode="Max")


def run_early_stopping(values, *, start=0, state=None, metric="m", **options):
    """Evaluates in every iteration; returns the number of iterations, the stop reason and the state."""
    hook = EarlyStopping(1, metric=metric, **options)
    results = Results(1, [{"m": value} for value in values])
    trainer = toy_trainer([results, hook])
    if state:
        hook.load_state_dict(state)
    trainer.train(start, start + len(values))
    left = len(list(results.results))
    return len(values) - left, trainer.stop_reason, hook.state_dict()


@pytest.mark.parametrize(
    ("values", "options", "ran"),
    [
        ([1, 2, 3, 4, 5, 6], {"patience": 2}, 6),
        ([1, 2, 2, 2, 9, 9], {"patience": 2}, 4),
        ([1, 2, 1, 3, 1, 1, 9], {"patience": 2}, 6),
        ([5, 4, 4, 4, 1], {"patience": 2, "mode": "min"}, 4),
        ([1.0, 1.05, 1.1, 1.3, 1.35, 9], {"patience": 2, "min_delta": 0.1}, 3),
        ([1, math.nan, math.nan, 9], {"patience": 2}, 3),
        ([math.nan, math.nan, 9], {"patience": 2}, 2),
        ([2, 1, 1], {"patience": 2}, 3),
    ],
)
def test_patience_counts_evaluations_without_a_better_value(values, options, ran):
    assert run_early_stopping(values, **options)[0] == ran


def test_the_reason_names_the_metric_and_the_evaluations():
    _, reason, _ = run_early_stopping([3, 2, 1, 1], patience=2)
    assert reason == "m is no better than 3 for 2 evaluations (train.early_stopping.patience)"
    assert run_early_stopping([3, 2, 1], patience=2)[1] is None, "the last evaluation has nothing left to stop"


def test_the_count_survives_a_resume():
    _, reason, state = run_early_stopping([9, 8, 7], patience=4)
    assert reason is None
    assert state["waited"] == 2
    ran, reason, _ = run_early_stopping([6, 5, 4, 3], start=3, state=state, patience=4)
    assert ran == 2
    assert "no better than 9 for 4 evaluations" in reason
    assert run_early_stopping([6, 5, 4, 3], start=3, state=state, patience=4, mode="min")[0] == 4, (
        "another metric is counted from 0"
    )


def test_an_evaluation_that_is_done_again_counts_once():
    hook = EarlyStopping(1, metric="m", patience=2)
    trainer = toy_trainer([Results(1, [{"m": 1}, {"m": 1}, {"m": 1}]), hook])
    once = hook.at_evaluation
    hook.at_evaluation = lambda: [once() for _ in range(3)]
    trainer.train(0, 3)
    assert hook.waited == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "up"}, "train.early_stopping.mode=up"),
        ({"patience": 0}, "train.early_stopping.patience=0"),
        ({"min_delta": -1.0}, "train.early_stopping.min_delta=-1.0"),
        ({"min_delta": math.nan}, "train.early_stopping.min_delta=nan"),
    ],
)
def test_invalid_options_of_early_stopping(options, message):
    with pytest.raises(InputError, match=message):
        EarlyStopping(1, metric="m", **options)


def test_an_unknown_metric_lists_the_metrics():
    with pytest.raises(InputError, match=r"train.early_stopping.metric=n: .*it has .*m"):
        run_early_stopping([1, 2], metric="n")


def test_finite_improvements_only():
    assert is_better(1.0, None, "max")
    assert is_better(1.0, 2.0, "min", min_delta=0.5)
    assert not is_better(1.0, 1.0, "max")
    assert not is_better(math.inf, 1.0, "max")
