"""preserved_model restores modes, buffers and random generators."""

import contextlib
import random

import numpy as np
import torch
from detectron2.utils.events import EventStorage, get_event_storage

from maskrcnn_ext.engine.preserved_model import preserved_model
from tests.helpers.toy_training import (
    Toy,
    random_states,
    same_states,
    same_weights,
    snapshot,
    toy_samples,
)


def test_restores_buffers_modes_and_generators():
    model = Toy().train()
    model.layer.eval()
    weights, before = snapshot(model), random_states()
    modes = [module.training for module in model.modules()]
    running_mean = model.norm.running_mean
    with preserved_model(model):
        model.train()(toy_samples(4))  # batch statistics
        model.norm.running_mean = torch.ones(3)
        assert not same_weights(weights, snapshot(model))
        torch.rand(1), np.random.rand(), random.random()
    assert same_weights(weights, snapshot(model))
    assert model.norm.running_mean is running_mean
    assert same_states(before, random_states())
    assert [module.training for module in model.modules()] == modes


def test_restores_after_an_error_and_drops_scalars():
    model = Toy().train()
    weights, before = snapshot(model), random_states()
    with EventStorage(5) as storage:
        with contextlib.suppress(ZeroDivisionError), preserved_model(model):
            model.eval()
            model.norm.running_mean.add_(1)
            get_event_storage().put_scalar("loss", 1.0)
            raise ZeroDivisionError
        assert storage.latest() == {}
    assert same_weights(weights, snapshot(model))
    assert same_states(before, random_states())
    assert model.norm.training
