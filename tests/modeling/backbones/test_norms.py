"""BatchNorm layers change their type, and their outputs stay the same."""

import pytest
import timm
import torch
from detectron2.layers import FrozenBatchNorm2d
from torch import nn

from maskrcnn_ext.modeling.backbones.norms import freeze_batch_norm, has_batch_norm, synchronise_batch_norm


def network():
    """Plain BatchNorm, and timm's with an activation inside."""
    torch.manual_seed(0)
    net = timm.create_model("mobilenetv3_small_050", num_classes=0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return net.eval()


def test_frozen_layers_compute_the_same_in_both_modes():
    net, x = network(), torch.randn(1, 3, 64, 64)
    expected = net.forward_features(x).detach()
    keys = {key for key in net.state_dict() if not key.endswith("num_batches_tracked")}
    frozen = freeze_batch_norm(net)
    assert frozen is net
    assert set(net.state_dict()) == keys
    assert not has_batch_norm(net)
    assert any(isinstance(module, FrozenBatchNorm2d) for module in net.modules())
    for mode in (False, True):
        torch.testing.assert_close(net.train(mode).forward_features(x), expected, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(net.forward_features(x), expected, rtol=1e-4, atol=1e-4)


def test_only_the_chosen_layers_freeze():
    net = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(3))
    freeze_batch_norm(net, lambda norm: norm.num_features == 3)
    assert type(net[0]) is nn.BatchNorm2d
    assert isinstance(net[1], FrozenBatchNorm2d)
    assert isinstance(freeze_batch_norm(nn.BatchNorm2d(2)), FrozenBatchNorm2d)


def test_the_epsilon_stays():
    frozen = freeze_batch_norm(nn.BatchNorm2d(1, eps=0.5))
    x = torch.full((1, 1, 1, 1), 3.0)
    assert frozen(x).item() == pytest.approx(3 / (1 + 0.5) ** 0.5)


def test_synchronised_layers_keep_their_activation():
    net, x = network(), torch.randn(1, 3, 64, 64)
    expected = net.forward_features(x)
    net = synchronise_batch_norm(net).eval()
    assert sum(isinstance(module, nn.SyncBatchNorm) for module in net.modules()) > 10
    torch.testing.assert_close(net.forward_features(x), expected)
