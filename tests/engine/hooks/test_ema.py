"""The average follows its formula, training is not affected, and the weights are restored bit for bit."""

import copy
import io

import pytest
import torch
from detectron2.engine import HookBase

from maskrcnn_ext.engine.hooks.ema import EMA
from maskrcnn_ext.errors import InputError
from tests.helpers.toy_training import Toy, same_weights, snapshot, toy_trainer


class Record(HookBase):
    """Records the weights before training and after every step."""

    def __init__(self):
        self.weights = []

    def before_train(self):
        self.weights.append(snapshot(self.trainer.model))

    def after_step(self):
        self.weights.append(snapshot(self.trainer.model))


@pytest.mark.parametrize("decay", [0.9, 0.15])
def test_it_follows_the_formula(decay):
    ema, record = EMA(decay), Record()
    trainer = toy_trainer([ema, record])
    trainer.train(0, 12)
    expected = {name: value.double() for name, value in record.weights[0].items()}
    for n, weights in enumerate(record.weights[1:]):
        d = min(decay, (1 + n) / (10 + n))
        expected = {name: d * value + (1 - d) * weights[name].double() for name, value in expected.items()}
    with ema.applied(trainer.model):
        applied = snapshot(trainer.model)
    for name, _ in trainer.model.named_parameters():
        torch.testing.assert_close(applied[name].double(), expected[name], rtol=1e-5, atol=1e-7)
        assert not torch.equal(applied[name], record.weights[-1][name])
    for name, buffer in trainer.model.named_buffers():
        assert torch.equal(applied[name], buffer), "buffers are the model's"


def test_training_is_not_affected():
    plain, averaged = toy_trainer(), toy_trainer([EMA(0.9)])
    plain.train(0, 8)
    averaged.train(0, 8)
    assert same_weights(snapshot(plain.model), snapshot(averaged.model))


def test_weights_are_restored_after_an_error():
    ema = EMA(0.9)
    trainer = toy_trainer([ema])
    trainer.train(0, 5)
    before, average = snapshot(trainer.model), copy.deepcopy(ema.state_dict()["average"])
    addresses = [parameter.data_ptr() for parameter in trainer.model.parameters()]
    with pytest.raises(TypeError), ema.applied(trainer.model):
        trainer.model(None)
    with ema.applied(trainer.model):
        assert not same_weights(before, snapshot(trainer.model))
    assert same_weights(before, snapshot(trainer.model))
    assert same_weights(average, ema.state_dict()["average"])
    assert addresses == [parameter.data_ptr() for parameter in trainer.model.parameters()]


def test_a_resumed_run_has_the_average_of_an_unbroken_one():
    whole, record = EMA(0.9), Record()
    toy_trainer([whole, record]).train(0, 8)

    first = EMA(0.9)
    trainer = toy_trainer([first])
    trainer.train(0, 4)
    file = io.BytesIO()
    torch.save({"model": trainer.model.state_dict(), "trainer": trainer.state_dict()}, file)
    file.seek(0)
    checkpoint = torch.load(file, weights_only=True)
    second = EMA(0.9)
    resumed = toy_trainer([second])
    resumed.model.load_state_dict(checkpoint["model"])
    resumed.load_state_dict(checkpoint["trainer"])
    for _ in range(4):
        next(resumed._data_loader_iter)
    resumed.train(4, 8)
    assert same_weights(whole.state_dict()["average"], second.state_dict()["average"])
    assert second.state_dict()["updates"] == 8


def test_a_checkpoint_of_the_average_resumes_the_training():
    ema = EMA(0.9)
    trainer = toy_trainer([ema])
    trainer.train(0, 5)
    weights, average = snapshot(trainer.model), copy.deepcopy(ema.state_dict()["average"])
    with ema.applied(trainer.model):
        model, state = snapshot(trainer.model), copy.deepcopy(ema.state_dict())
    assert same_weights(state["average"], average)
    assert all(torch.equal(model[name], value) for name, value in average.items())
    again = EMA(0.9)
    resumed = toy_trainer([again])
    resumed.model.load_state_dict(model)
    again.load_state_dict(state)
    assert same_weights(snapshot(resumed.model), weights)
    assert same_weights(again.state_dict()["average"], average)


def test_it_starts_from_loaded_weights():
    ema = EMA(0.5)
    trainer = toy_trainer([ema])
    with torch.no_grad():
        trainer.model.layer.weight.fill_(7.0)  # after the hook was made
    ema.before_train()
    assert torch.equal(ema.state_dict()["average"]["layer.weight"], torch.full((1, 3), 7.0))


def test_mistakes():
    for decay in (0.0, 1.0, -1, 2):
        with pytest.raises(InputError, match=f"train.ema.decay={decay}: expected a number between 0 and 1"):
            EMA(decay)
    ema = EMA(0.9)
    toy_trainer([ema]).train(0, 1)
    other = EMA(0.9)
    model = Toy()
    model.layer = torch.nn.Linear(3, 2)
    trainer = toy_trainer([other], model=model)
    with pytest.raises(InputError, match=r"belongs to another model: layer\.\w+ is missing or has another shape"):
        other.load_state_dict(ema.state_dict())
    assert trainer.model is model
