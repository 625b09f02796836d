"""Small detectors on one network of each family of timm, with random weights and statistics that were measured."""

from __future__ import annotations

import copy
import functools

import torch
from detectron2.modeling import GeneralizedRCNN
from torch import nn

from maskrcnn_ext import TimmBackbone
from tests.helpers.random_models import NORMS
from tests.inference.optimization.test_matrix import IMAGE, make_model

# Family -> its network, and how its BatchNorm is kept.
NETS = {
    "ConvNeXt": ("convnext_atto", None),
    "Swin": ("swin_tiny_patch4_window7_224", None),
    "EfficientNet": ("tf_efficientnet_lite0", "FrozenBN"),
    "MobileNet": ("mobilenetv4_conv_small", "BN"),
    "RegNet": ("regnety_002", "FrozenBN"),
    "HGNet": ("hgnetv2_b0", "BN"),
    "ViT": ("deit_tiny_patch16_224", None),
}


def detector(family: str) -> GeneralizedRCNN:
    """Returns a copy of a family's detector in evaluation mode."""
    return copy.deepcopy(cached_detector(family))


@functools.cache
def cached_detector(family: str) -> GeneralizedRCNN:
    return make_detector(*NETS[family])


def make_detector(name: str, norm: str | None) -> GeneralizedRCNN:
    """Returns the detector of a network of timm."""
    torch.manual_seed(0)
    pixels = {"pixel_mean": [128.0] * 3, "pixel_std": [64.0] * 3}
    net = TimmBackbone(name, pretrained=False, norm=norm, **pixels)
    model = make_model(bottom_up=net)
    measure_statistics(model, model.preprocess_image([{"image": IMAGE}]).tensor)
    return model


@torch.no_grad()
def measure_statistics(model: nn.Module, images: torch.Tensor) -> None:
    """Sets the statistics of all norms of the backbone by its activations, so that no map vanishes or grows.

    The exact mean and variance of few pixels would be another matter: a channel that hardly varies would be all rounding after its norm.
    """

    def take(norm: nn.Module, arguments: tuple[torch.Tensor]) -> None:
        (values,) = arguments
        mean = values.mean((0, 2, 3)) / 2
        squares = (values - mean[:, None, None]).square().mean((0, 2, 3))
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(squares + squares.mean())

    hooks = [norm.register_forward_pre_hook(take) for norm in model.modules() if isinstance(norm, NORMS)]
    model.backbone(images)
    for hook in hooks:
        hook.remove()
