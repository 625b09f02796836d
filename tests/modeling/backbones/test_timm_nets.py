"""Networks of timm are described, checked and built."""

import pytest
import torch

from maskrcnn_ext import InputError
from maskrcnn_ext.modeling.backbones.timm_nets import TimmNet


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("convnext_tny", r"timm has no network 'convnext_tny': did you mean convnext_tiny"),
        ("convnext_tiny.in12k_ft_in1l", r"no weights .*: did you mean in12k_ft_in1k"),
        ("convnext_tiny.laion", r"no weights 'convnext_tiny\.laion'"),
        ("hf-hub:timm/convnext_tiny", "timm has no network"),
        ("mixer_b16_224", "takes images of 224x224 pixels only"),
        ("maxvit_tiny_rw_224", "takes images of 224x224 pixels only"),
        (
            "vit_tiny_r_s16_p8_224",
            "has a map of stride 32 that a convolutional network makes.*such as vit_base_r50_s16_224",
        ),
    ],
)
def test_networks_that_cannot_be_used(name, message):
    with pytest.raises(InputError, match=message) as error:
        TimmNet(name)
    assert "\n" not in str(error.value)


def test_missing_strides():
    with pytest.raises(InputError, match="resnet18 has maps of strides 2, 4, 8, 16, 32, none of 64"):
        TimmNet("resnet18").choose_maps((4, 64))


@pytest.mark.parametrize(
    ("name", "is_plain", "indices"),
    [
        ("convnext_atto", False, [0, 1, 2, 3]),
        ("tf_efficientnet_lite0", False, [1, 2, 3, 4]),  # the first has stride 2
        ("deit_tiny_patch16_224", True, [11]),
    ],
)
def test_the_maps_of_the_strides(name, is_plain, indices):
    net = TimmNet(name)
    assert net.is_plain == is_plain
    assert net.choose_maps((4, 8, 16, 32)) == indices


def test_a_rate_of_stochastic_depth_that_has_no_effect():
    with pytest.raises(InputError, match="vgg11 has no stochastic depth"):
        TimmNet("vgg11").build(False, in_chans=3, drop_path_rate=0.1)


@pytest.mark.parametrize(
    ("name", "stem", "first"),
    [
        ("convnext_atto", "stem.", "stages.0."),
        ("tf_efficientnet_lite0", ("conv_stem", "bn1", "blocks.0."), "blocks.1."),
        ("deit_tiny_patch16_224", ("patch_embed.", "pos_embed", "cls_token"), ("blocks.0.", "blocks.1.", "blocks.2.")),
    ],
)
def test_the_parameters_of_the_first_stages(name, stem, first):
    description = TimmNet(name)
    with torch.device("meta"):
        net = description.build(False, in_chans=3, drop_path_rate=None)
    names = [key for key, _ in net.named_parameters()]
    one, two = description.parameters_before(net, 1), description.parameters_before(net, 2)
    assert one == {key for key in names if key.startswith(stem)}
    assert two - one == {key for key in names if key.startswith(first)}
    assert description.parameters_before(net, 4) < description.parameters_before(net, 5) <= set(names)
