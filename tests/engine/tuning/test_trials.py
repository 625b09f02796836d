"""A study stores its trials, continues those that were stopped, and is tied to its config and data."""

import pytest

from maskrcnn_ext.config.zoo import load_config
from maskrcnn_ext.engine.hooks.pruning import STUDY
from maskrcnn_ext.engine.tuning.search_space import Dimension
from maskrcnn_ext.engine.tuning.trials import Tuning, trial_length
from maskrcnn_ext.errors import InputError

optuna = pytest.importorskip("optuna")
RATE = Dimension("rate", 0.1, lambda value: {"optimizer.lr": value}, 0.01, 1.0, log=True)
LOSS = Dimension("loss", "a", lambda value: {"head.loss": value}, choices=("a", "b"))


def open_tuning(folder, **more):
    return Tuning(folder, "config.py", [RATE, LOSS], metric="segm/AP", **more)


def study_in(folder):
    return optuna.load_study(study_name=STUDY, storage=f"sqlite:///{folder / 'study.db'}")


def add_trial(folder, number, rate, loss, **more):
    study_in(folder).add_trial(
        optuna.trial.create_trial(
            params={"rate": rate, "loss": loss},
            distributions={
                "rate": optuna.distributions.FloatDistribution(0.01, 1.0, log=True),
                "loss": optuna.distributions.CategoricalDistribution(("a", "b")),
            },
            user_attrs={"folder": str(number), **more.pop("user_attrs", {})},
            **more,
        )
    )


def test_trials_and_the_best_of_them(tmp_path):
    tuning = open_tuning(tmp_path)
    assert tuning.best() is None
    states = optuna.trial.TrialState
    for number, (rate, value) in enumerate([(0.1, 20.0), (0.02, 24.5), (0.9, 23.0)]):
        add_trial(tmp_path, number, rate, "a", value=value)
    add_trial(tmp_path, 3, 0.5, "b", state=states.PRUNED, intermediate_values={2: 30.0, 5: 10.0})
    add_trial(tmp_path, 4, 0.5, "b", state=states.FAIL, user_attrs={"failure": "out of memory"})
    add_trial(tmp_path, 5, 0.5, "b", state=states.FAIL)  # was stopped, and continues under another number
    found = tuning.trials()
    assert [trial.folder.name for trial in found] == ["0", "1", "2", "3", "4"]
    assert [trial.value for trial in found] == [20.0, 24.5, 23.0, 30.0, None]
    assert [trial.pruned for trial in found] == [False, False, False, True, False]
    assert found[4].failure == "out of memory"
    best = tuning.best()
    assert best is not None
    assert best.folder == tmp_path / "trials" / "1"
    assert tuning.settings(best) == {"optimizer.lr": 0.02}
    assert tuning.importances() == {}


def test_settings_that_distinguish_good_trials(tmp_path):
    tuning = open_tuning(tmp_path)
    for number in range(12):
        rate = 0.01 * 1.4**number
        add_trial(tmp_path, number, rate, "ab"[number % 2], value=100 - 50 * rate)
    shares = tuning.importances()
    assert shares["rate"] > shares["loss"]
    assert sum(shares.values()) == pytest.approx(1)


def test_the_first_trial_is_the_config_itself_and_a_stopped_one_continues(tmp_path):
    tuning = open_tuning(tmp_path)
    add_trial(tmp_path, 7, 0.3, "b", state=optuna.trial.TrialState.RUNNING)
    tuning._continue_stopped()
    waiting = study_in(tmp_path).get_trials(states=(optuna.trial.TrialState.WAITING,))
    assert [trial.system_attrs["fixed_params"] for trial in waiting] == [
        {"rate": 0.1, "loss": "a"},
        {"rate": 0.3, "loss": "b"},
    ]
    assert waiting[1].user_attrs == {"folder": "7"}
    assert tuning.trials() == []


def test_another_tuning_needs_another_folder(tmp_path):
    open_tuning(tmp_path)
    with pytest.raises(InputError, match=r"has trials of another tuning \(other overrides\)"):
        open_tuning(tmp_path, fixed=["train.time=3"])


def test_the_weights_of_the_best_remain(tmp_path):
    tuning = open_tuning(tmp_path)
    for number, value in enumerate([20.0, 24.0, 22.0]):
        add_trial(tmp_path, number, 0.1, "a", value=value)
        (tmp_path / f"trials/{number}").mkdir(parents=True)
        for name in ("model_best.pth", "log.txt"):
            (tmp_path / f"trials/{number}/{name}").touch()
    tuning._remove_weights()
    kept = sorted(str(file.relative_to(tmp_path / "trials")) for file in (tmp_path / "trials").glob("*/*"))
    assert kept == ["0/log.txt", "1/log.txt", "1/model_best.pth", "2/log.txt"]


@pytest.mark.parametrize(
    ("given", "length", "period"),
    [
        ([], 375, 94),
        (["train.max_iter=40"], 40, 10),
        (["train.time=5"], 1500, 375),
        (["train.eval_period=100"], 375, 25),
    ],
)
def test_the_length_of_a_trial(given, length, period):
    found = trial_length(load_config("domains/nuclei.py", given), given)
    assert f"train.max_iter={length}" in found
    assert f"train.eval_period={period}" in found
    assert f"train.checkpointer.period={period}" in found
