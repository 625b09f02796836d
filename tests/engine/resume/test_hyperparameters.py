"""A restored optimizer has the hyper-parameters of the config and the state of the checkpoint."""

import copy

import pytest
import torch

from maskrcnn_ext.engine.resume.hyperparameters import hyperparameters, restore_hyperparameters


def build(lr, weight_decay, **more):
    weights = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    groups = [{"params": weights[:1]}, {"params": weights[1:], "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=lr, weight_decay=weight_decay, momentum=0.9, **more)


@pytest.fixture
def state():
    """The state of an optimizer after a step, whose rate a schedule has lowered."""
    optimizer = build(0.1, 0.05)
    for group in optimizer.param_groups:
        group["initial_lr"], group["lr"] = group["lr"], 0.01
        group["params"][0].grad = torch.ones(2)
    optimizer.step()
    return optimizer.state_dict()


def test_the_config_replaces_the_checkpoints_values_but_not_its_state(state):
    optimizer = build(0.2, 0.001, fused=True)
    wanted = hyperparameters(optimizer)
    optimizer.load_state_dict(copy.deepcopy(state))
    assert restore_hyperparameters(optimizer, wanted) == ["lr 0.1 -> 0.2", "weight_decay 0.05 -> 0.001"]
    assert [(g["lr"], g["initial_lr"], g["weight_decay"]) for g in optimizer.param_groups] == [
        (0.2, 0.2, 0.001),
        (0.2, 0.2, 0.0),
    ]
    assert not optimizer.param_groups[0]["fused"], "the implementation is that of the restored state"
    assert len(optimizer.state) == 2


def test_equal_settings_are_no_change(state):
    optimizer = build(0.1, 0.05)
    wanted = hyperparameters(optimizer)
    optimizer.load_state_dict(state)
    assert restore_hyperparameters(optimizer, wanted) == []
