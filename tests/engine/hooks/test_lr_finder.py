"""The sweep sets its rates, stops when the loss diverges, and suggests a learning rate that trains."""

import json
import logging
import math

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from maskrcnn_ext.engine.hooks.lr_finder import LRFinder, find_rates, smooth
from maskrcnn_ext.errors import InputError
from tests.helpers.toy_training import toy_trainer


class Bowl(nn.Module):
    """Loss k w^2 / 2: gradient descent converges for a learning rate below 2 / k and diverges above."""

    def __init__(self, k):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.k = k

    def forward(self, _):
        return {"loss_bowl": 0.5 * self.k * self.weight.square().sum() + 1.0}


def sweep(tmp_path, model, *, lowest=1e-6, highest=1e3, steps=90, **options):
    finder = LRFinder(lowest=lowest, highest=highest, steps=steps, output_dir=str(tmp_path / "out"))
    trainer = toy_trainer([finder], model=model, guard=finder, **options)
    trainer.train(0, steps)
    return finder, trainer, json.loads((tmp_path / "out/lr_finder.json").read_text())


@pytest.mark.parametrize("k", [0.1, 20.0])
def test_it_finds_the_magnitude_of_the_right_rate_and_stops_above(k, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        finder, trainer, record = sweep(tmp_path, Bowl(k))
    assert "the loss diverges at a learning rate of" in trainer.stop_reason
    assert trainer.iter < 89
    assert 1e-3 / k < finder.suggestion < 2 / k
    assert finder.suggestion == record["suggestion"]
    assert f"train.lr_finder.enabled=false optimizer.lr={finder.suggestion:.2g}" in caplog.text
    picture = cv2.imread(str(tmp_path / "out/lr_finder.png"))
    assert picture is not None
    assert picture.std() > 1


class TwoGroups(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))

    def forward(self, _):
        return {"loss": (self.a.square() + self.b.square()).sum()}


def test_the_steps_have_the_rates_of_the_sweep_and_groups_keep_their_ratios(tmp_path):
    model = TwoGroups()
    finder = LRFinder(lowest=1e-4, highest=1e-2, steps=11, output_dir=str(tmp_path))
    trainer = toy_trainer([finder], model=model, guard=finder)
    groups = [{"params": [model.a]}, {"params": [model.b], "lr": 0.2}]
    trainer.optimizer = torch.optim.SGD(groups, lr=0.1)
    seen = []
    run_step = trainer.run_step
    trainer.run_step = lambda: (seen.append([g["lr"] for g in trainer.optimizer.param_groups]), run_step())
    trainer.train(0, 11)
    rates = np.geomspace(1e-4, 1e-2, 11)
    assert np.allclose(seen, np.stack([rates, 2 * rates], axis=1))
    record = json.loads((tmp_path / "lr_finder.json").read_text())
    assert np.allclose(record["lr"], rates)
    assert record["loss"][0] == pytest.approx(2.0)
    assert trainer.stop_reason is None


class Breaks(Bowl):
    """From step 21 on the loss is NaN or, as in Detectron2's proposals, the model raises."""

    def __init__(self, raises):
        super().__init__(1.0)
        self.raises, self.steps = raises, 0

    def forward(self, batch):
        self.steps += 1
        if self.steps > 20 and self.raises:
            raise FloatingPointError("Predicted boxes or scores contain Inf/NaN. Training has diverged.")
        return {"loss": super().forward(batch)["loss_bowl"] * (math.nan if self.steps > 20 else 1)}


@pytest.mark.parametrize("raises", [False, True])
def test_a_non_finite_loss_ends_the_sweep_without_an_error(raises, tmp_path):
    _, trainer, record = sweep(tmp_path, Breaks(raises))
    assert "diverges" in trainer.stop_reason
    assert len(record["loss"]) == 20
    assert all(map(math.isfinite, record["loss"]))
    assert torch.isfinite(trainer.model.weight).all(), "the step with the broken loss is not taken"


def test_no_suggestion_if_the_loss_never_falls(tmp_path, caplog):
    class Flat(Bowl):
        def forward(self, _):
            return {"loss": self.weight.sum() * 0 + 3}

    with caplog.at_level(logging.INFO):
        finder, _, record = sweep(tmp_path, Flat(1.0), steps=30)
    assert finder.suggestion is None
    assert record["suggestion"] is None
    assert "No suggestion for the learning rate" in caplog.text


def test_the_smoothed_curve_has_no_bias():
    assert smooth([2.0] * 5) == pytest.approx([2.0] * 5)
    curve = smooth([1.0, 3.0])
    assert curve[1] == pytest.approx((0.95 * 1 + 3) / 1.95)


def test_the_curve_is_read_at_the_steepest_descent_and_the_minimum():
    rates = np.geomspace(1e-5, 1, 101)
    # Falls as a logistic around 1e-3, is lowest at 1e-2 and explodes.
    x = np.log10(rates)
    curve = 2 - 1 / (1 + np.exp(-(x + 3) * 6)) + np.maximum(0, x + 2) ** 2
    steepest, tenth = find_rates(rates.tolist(), curve.tolist())
    assert steepest == pytest.approx(1e-3, rel=0.2)
    assert tenth == pytest.approx(1e-3, rel=0.2)
    assert find_rates(rates.tolist(), np.linspace(1, 2, 101).tolist()) is None
    assert find_rates(rates[:5].tolist(), curve[:5].tolist()) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lowest": 0.0}, "expected 0 < lowest < highest, found lowest=0.0"),
        ({"lowest": 2.0}, "found lowest=2.0 highest=1.0"),
        ({"highest": math.inf}, "highest=inf"),
        ({"steps": 3}, "train.lr_finder.steps=3: expected 10 or more"),
    ],
)
def test_mistakes(options, message, tmp_path):
    with pytest.raises(InputError, match=message):
        LRFinder(**{"lowest": 1e-6, "highest": 1.0, "steps": 100, "output_dir": str(tmp_path), **options})
