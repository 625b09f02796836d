"""A run ends when it gets no better, and not before; how long it has waited survives a resume."""

import math

import pytest

from maskrcnn_ext.engine.hooks.early_stopping import EarlyStopping
from maskrcnn_ext.errors import InputError
from tests.helpers.toy_training import Results, toy_trainer


def run(values, *, start=0, state=None, metric="m", **options):
    """One evaluation an iteration; returns how many iterations ran, the reason for the end, and the state."""
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
    assert run(values, **options)[0] == ran


def test_the_reason_says_what_and_for_how_long():
    _, reason, _ = run([3, 2, 1, 1], patience=2)
    assert reason == "m is no better than 3 for 2 evaluations (train.early_stopping.patience)"
    assert run([3, 2, 1], patience=2)[1] is None, "the last evaluation has nothing left to stop"


def test_the_count_survives_a_resume():
    _, reason, state = run([9, 8, 7], patience=4)
    assert reason is None
    assert state["waited"] == 2
    ran, reason, _ = run([6, 5, 4, 3], start=3, state=state, patience=4)
    assert ran == 2
    assert "no better than 9 for 4 evaluations" in reason
    assert run([6, 5, 4, 3], start=3, state=state, patience=4, mode="min")[0] == 4, "another metric is counted anew"


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
def test_mistakes(options, message):
    with pytest.raises(InputError, match=message):
        EarlyStopping(1, metric="m", **options)


def test_a_metric_that_is_not_there():
    with pytest.raises(InputError, match=r"train.early_stopping.metric=n: .*there is .*m"):
        run([1, 2], metric="n")
