"""The length of a training in epochs and in minutes."""

import subprocess
import sys
import time

import pytest
import torch
from detectron2.config import LazyConfig
from omegaconf import OmegaConf

from maskrcnn_ext.config.settings import add_missing_settings
from maskrcnn_ext.engine.main import main
from maskrcnn_ext.engine.run_length import Speed, fit_length, read_began, set_length, time_evaluation
from maskrcnn_ext.engine.training_data import TrainingData
from maskrcnn_ext.errors import InputError
from tests.helpers.small_run import small_run, spec_of

DATA = TrainingData([{}] * 30, None)


def config(tmp_path, **train):
    found = {"max_iter": 100, "eval_period": 20, "checkpointer": {"period": 50}, "output_dir": str(tmp_path), **train}
    loader = {"train": {"total_batch_size": 4, "mixed_samples": 360}}
    return add_missing_settings(OmegaConf.create({"train": found, "dataloader": loader}))


def measured(_):
    return Speed(step=0.5, evaluation=10.0)


def test_other_counts_keep_their_share(tmp_path):
    cfg = config(tmp_path)
    set_length(cfg, 50)
    assert (cfg.train.max_iter, cfg.train.eval_period, cfg.train.checkpointer.period) == (50, 10, 25)
    assert cfg.dataloader.train.mixed_samples == 180
    cfg = config(tmp_path, eval_period=0)
    set_length(cfg, 50)
    assert cfg.train.eval_period == 0


def test_epochs(tmp_path):
    cfg = config(tmp_path, epochs=10, accumulate=2)
    fit_length(cfg, DATA, measured, began=None)
    assert cfg.train.max_iter == 38  # 300 images, 8 a step
    with pytest.raises(InputError, match=r"train.epochs needs a list of images"):
        fit_length(cfg, TrainingData(None, None), measured, began=None)


def test_neither_changes_nothing(tmp_path):
    cfg = config(tmp_path)
    fit_length(cfg, DATA, measured, began=None)
    assert cfg == config(tmp_path)


def test_minutes_have_room_for_the_evaluations(tmp_path):
    cfg = config(tmp_path, time=10)
    fit_length(cfg, DATA, measured, began=None)
    evaluations = -(-cfg.train.max_iter // cfg.train.eval_period)
    assert evaluations == 5
    assert 500 < cfg.train.max_iter * 0.5 + evaluations * 10 < 600


class Ticking(torch.nn.Linear):
    """A model that needs three seconds of a simulated clock for a batch."""

    now = 0.0

    def forward(self, _):
        self.now += 3.0


def test_an_evaluation_is_timed_by_the_given_clock():
    model = Ticking(1, 1)
    assert time_evaluation(model, [[{}]] * 6, 20, lambda: model.now) == 60.0


def test_cpu_time_leaves_out_waiting(tmp_path):
    cfg = config(tmp_path, time=1, clock="cpu")
    allowed = []

    def measure(seconds):
        subprocess.run([sys.executable, "-c", "sum(range(10_000_000))"], check=True)
        allowed.append(seconds)
        return Speed(step=1.0, evaluation=0.0)

    fit_length(cfg, DATA, measure, began=None)
    assert allowed == [3.0]
    assert cfg.train.max_iter == 53  # of 60 seconds, none of which the other process used


def test_costly_evaluations_become_fewer(tmp_path):
    cfg = config(tmp_path, time=2)
    fit_length(cfg, DATA, measured, began=None)
    assert -(-cfg.train.max_iter // cfg.train.eval_period) == 3
    assert cfg.train.checkpointer.period == cfg.train.eval_period


def test_too_short_a_time_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"train.time=0.1 minutes are too short: a step takes 0.5 seconds"):
        fit_length(config(tmp_path, time=0.1), DATA, measured, began=None)


def test_a_resumed_run_keeps_its_length(tmp_path):
    cfg = config(tmp_path, time=10)
    fit_length(cfg, DATA, measured, began=None)
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    began = read_began(tmp_path)
    again = config(tmp_path, time=10)
    fit_length(again, DATA, lambda _: pytest.fail("measured again"), began=began)
    assert again.train == cfg.train
    longer = config(tmp_path, time=20)
    fit_length(longer, DATA, measured, began=began)
    assert longer.train.max_iter > cfg.train.max_iter


def run(shapes, folder, *flags, **more):
    arguments = small_run(spec_of(shapes), folder, **{"train.eval_period": 2, **more})
    assert main(["--config-file", "domains/shapes.py", "--num-gpus", "0", *flags, *arguments]) == 0
    assert (folder / "model_final.pth").is_file()
    return LazyConfig.load(str(folder / "config.yaml")).train, (folder / "log.txt").read_text()


def test_a_run_of_half_an_epoch(shapes, tmp_path):
    train, log = run(shapes, tmp_path, **{"train.epochs": 0.5})
    assert train.max_iter == 2  # 4 of 8 images, 2 a step
    assert "train.epochs=0.5: 2 iterations of 2 images, of 8 in all" in log
    # Detectron2's setup has replaced the config of the run by then.
    resumed, log = run(shapes, tmp_path, "--resume", **{"train.epochs": 0.5})
    assert resumed == train
    assert "train.max_iter=2, as the run began" in log


@pytest.mark.slow
def test_a_run_of_a_minute(shapes, tmp_path):
    start = time.monotonic()
    train, log = run(shapes, tmp_path, **{"train.time": 1, "train.max_iter": 100, "train.eval_period": 50})
    assert f"train.time=1 minutes: train.max_iter={train.max_iter} (" in log
    assert 20 < time.monotonic() - start < 120
