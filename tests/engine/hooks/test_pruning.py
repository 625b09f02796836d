"""A trial that is worse than most were at the same point ends; a good one, and the first ones, do not."""

import math

import pytest

from maskrcnn_ext.engine.hooks.pruning import STUDY, Pruning, point_of
from tests.helpers.toy_training import Results, toy_trainer

optuna = pytest.importorskip("optuna")


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    """A study of four trials with values of 20 to 26 after half of the training."""
    address = f"sqlite:///{tmp_path_factory.mktemp('study') / 'study.db'}"
    study = optuna.create_study(study_name=STUDY, storage=address, direction="maximize")
    for value in (20.0, 22.0, 24.0, 26.0):
        study.add_trial(optuna.trial.create_trial(value=2 * value, intermediate_values={5: value, 10: 2 * value}))
    return address


def iterations(storage, values, *, state=None):
    """Evaluates after every second of four iterations; returns the number of iterations that ran, and the hook."""
    hook = Pruning(2, storage=storage, metric="segm/AP")
    if state:
        hook.load_state_dict(state)
    trainer = toy_trainer([Results(2, [{"segm/AP": value} for value in values]), hook])
    trainer.train(0, 4)
    return (trainer.iter + 1 if trainer.stop_reason else 4), hook


@pytest.mark.parametrize(("value", "expected"), [(22.9, 2), (23.1, 4), (math.nan, 2)])
def test_below_the_median_of_this_point_the_training_ends(storage, value, expected):
    assert iterations(storage, [value, 50.0])[0] == expected


def test_a_resumed_trial_is_judged_by_its_best_value(storage):
    _, hook = iterations(storage, [30.0, 30.0])
    assert hook.state_dict() == {"values": {5: 30.0, 10: 30.0}}
    assert iterations(storage, [10.0, 50.0], state={"values": {2: 30.0}})[0] == 4
    assert Pruning(2, storage=storage, metric="segm/AP").state_dict() == {}


def test_the_first_trials_run_to_their_end(tmp_path):
    address = f"sqlite:///{tmp_path / 'study.db'}"
    study = optuna.create_study(study_name=STUDY, storage=address, direction="maximize")
    for value in (20.0, 22.0, 24.0):
        study.add_trial(optuna.trial.create_trial(value=value, intermediate_values={5: value}))
    assert iterations(address, [1.0, 1.0])[0] == 4


def test_points_of_trials_of_other_lengths_agree():
    assert [point_of(iteration, 10) for iteration in (2, 4, 9, 10)] == [3, 5, 10, 10]
    assert [point_of(iteration, 1000) for iteration in (249, 499, 999)] == [2, 5, 10]
