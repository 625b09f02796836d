"""A tiny trainer and a small Mask R-CNN for the tests of training."""

import copy
import itertools
import random

import numpy as np
import torch
from detectron2.config import LazyConfig, instantiate
from torch import nn

from maskrcnn_ext import get_config
from maskrcnn_ext.engine.hooks.evaluation import EvaluationHook
from maskrcnn_ext.engine.train_loop import Trainer


class Toy(nn.Module):
    """A regression with BatchNorm that returns a dict of losses; an input is {"x": (3,), "y": (1,)}."""

    def __init__(self):
        super().__init__()
        self.norm, self.layer = nn.BatchNorm1d(3), nn.Linear(3, 1)

    def forward(self, batch):
        x, y = (torch.stack([sample[key] for sample in batch]) for key in "xy")
        predicted = self.layer(self.norm(x))
        return {"loss_a": (predicted - y).square().mean(), "loss_b": predicted.abs().mean()}


def toy_samples(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 3, generator=generator)
    y = x.sum(1, keepdim=True) + 0.1 * torch.randn(count, 1, generator=generator)
    return [{"x": x[i], "y": y[i], "image_id": i} for i in range(count)]


def toy_trainer(hooks=(), *, model=None, lr=0.1, **options):
    torch.manual_seed(0)
    model = model or Toy()
    samples = itertools.cycle(toy_samples(64))
    loader = iter(lambda: list(itertools.islice(samples, 4)), None)
    trainer = Trainer(model, loader, torch.optim.SGD(model.parameters(), lr=lr), **options)
    trainer.register_hooks(list(hooks))
    return trainer


class Results(EvaluationHook):
    """An evaluation with given results: one dict of scalars each time."""

    def __init__(self, period, results):
        super().__init__(period)
        self.results = iter(results)

    def at_evaluation(self):
        for name, value in next(self.results).items():
            self.trainer.storage.put_scalar(name, value, smoothing_hint=False)


class Saved:
    """A checkpointer that records (name, iteration, the trainer's state) of every save."""

    def __init__(self):
        self.files = []
        self.trainer = None

    def save(self, name, iteration):
        state = copy.deepcopy(self.trainer.state_dict()) if self.trainer else None
        self.files.append((name, iteration, state))


def small_config(spec):
    """Returns domains/shapes.py with narrower layers, and the data set `spec` for training and test."""
    return LazyConfig.apply_overrides(
        get_config("domains/shapes.py"),
        [
            f"dataloader.train.dataset.names={spec}",
            f"dataloader.test.dataset.names={spec}",
            "dataloader.train.num_workers=0",
            "dataloader.test.num_workers=0",
            "model.backbone.out_channels=16",
            "model.roi_heads.batch_size_per_image=8",
            "model.roi_heads.mask_head.conv_dims=[16,16]",
            "model.roi_heads.box_head.fc_dims=[32]",
            "model.roi_heads.box_predictor.input_shape.channels=32",
        ],
    )


def small_model(cfg, seed=0):
    torch.manual_seed(seed)
    return instantiate(cfg.model)


def random_states():
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def same_states(one, other):
    return (
        one[0] == other[0]
        and one[1][2:] == other[1][2:]
        and np.array_equal(one[1][1], other[1][1])
        and torch.equal(one[2], other[2])
    )


def snapshot(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same_weights(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
