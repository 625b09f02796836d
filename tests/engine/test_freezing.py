"""Frozen parameters do not change, nor do the statistics of their norms; the rest trains."""

import copy
import json
import logging

import pytest
import torch
from torch import nn

from maskrcnn_ext import InputError
from maskrcnn_ext.engine.freezing import freeze_parameters
from maskrcnn_ext.engine.main import main
from tests.helpers.small_run import small_run, spec_of


def small_net():
    torch.manual_seed(0)
    net = nn.Module()
    net.backbone = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.BatchNorm2d(2, affine=False))
    net.head = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2))
    net.forward = lambda x: net.head(net.backbone(x))
    return net


def changed_by_a_step(net, patterns):
    """Returns the names of the tensors that a step changes."""
    freeze_parameters(net, patterns)
    before = copy.deepcopy(net.state_dict())
    optimizer = torch.optim.SGD((p for p in net.parameters() if p.requires_grad), lr=1.0)
    net.train()
    net.forward(torch.arange(8.0).reshape(2, 1, 2, 2)).exp().sum().backward()
    optimizer.step()
    assert net.state_dict().keys() == before.keys()
    return {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}


STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
HEAD_NORM = {f"head.1.{name}" for name in STATISTICS}


def test_frozen_weights_and_statistics_stay():
    changed = changed_by_a_step(small_net(), ["backbone.*"])
    assert changed >= HEAD_NORM
    assert "head.0.weight" in changed
    assert not {name for name in changed if name.startswith("backbone")}


def test_a_norm_with_a_trained_parameter_keeps_its_batch_statistics():
    changed = changed_by_a_step(small_net(), ["*.weight"])
    assert changed >= HEAD_NORM | {f"backbone.1.{name}" for name in STATISTICS} | {"head.1.bias"}
    assert not {name for name in changed if name.endswith(".weight")}


def test_a_norm_is_frozen_by_its_parameters_or_by_its_name():
    assert "backbone.1.running_mean" not in changed_by_a_step(small_net(), ["backbone.1.weight", "backbone.1.bias"])
    assert "backbone.2.running_mean" not in changed_by_a_step(small_net(), ["backbone.2.*"])  # has no parameters


def test_a_frozen_norm_normalises_as_in_evaluation():
    net = small_net()
    x = torch.randn(4, 1, 3, 3)
    expected = net.eval().backbone(x)
    freeze_parameters(net, ["backbone.*"])
    assert torch.equal(copy.deepcopy(net).train().backbone(x), expected)


def test_no_pattern_changes_nothing():
    net = small_net()
    freeze_parameters(net, [])
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert type(net.backbone[1]) is nn.BatchNorm2d


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["backbone"], r"no parameter matches 'backbone': did you mean backbone.\*\?"),
        (["head.*", "bakbone.*"], r"'bakbone.\*': did you mean backbone.\*"),
        (["zzzzzz"], r"the model's parts are backbone, head, as in backbone.\*"),
        (["*"], "freezes every parameter"),
    ],
)
def test_mistakes_are_one_line(patterns, message):
    with pytest.raises(InputError, match=message) as caught:
        freeze_parameters(small_net(), patterns)
    assert "\n" not in str(caught.value)


def test_a_run_freezes_and_resumes(shapes, tmp_path, caplog, capsys):
    caplog.set_level(logging.INFO)

    def run(iterations, freeze, *flags):
        more = {"train.max_iter": iterations, "train.freeze": freeze, "dataloader.evaluator": "null"}
        return main(["--config-file", "domains/shapes.py", *flags, *small_run(spec_of(shapes), tmp_path, **more)])

    def weights():
        return torch.load(tmp_path / "model_final.pth", weights_only=True)

    assert run(1, '["backbone.bottom_up.*"]') == 0
    assert "train.freeze: 60 of " in caplog.text
    first = weights()
    assert run(2, '["backbone.bottom_up.*"]', "--resume") == 0
    second = weights()
    changed = {name for name, value in second["model"].items() if not torch.equal(value, first["model"][name])}
    assert changed
    assert not {name for name in changed if name.startswith("backbone.bottom_up.")}
    in_optimizer = sum(len(group["params"]) for group in second["trainer"]["optimizer"]["param_groups"])
    assert in_optimizer == len([name for name in changed if not name.endswith(STATISTICS)])
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert [line["iteration"] for line in lines if "total_loss" in line] == [0, 1]

    capsys.readouterr()
    assert run(3, "[]", "--resume") == 2
    assert "resume with the config that it was trained with" in capsys.readouterr().err
