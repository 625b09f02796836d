"""Layer-wise rate decay: factors counted by hand for each family, and Detectron2's own groups where it has them."""

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.solver.build import get_default_optimizer_params
from torch import nn

from maskrcnn_ext import InputError, compat, get_config, layer_decay_params
from maskrcnn_ext.modeling.layer_decay import layer_factors

timm = pytest.importorskip("timm")


def with_backbone(backbone):
    """A model with a backbone and a head; a layer between them is new, as an FPN is."""
    model = nn.Module()
    model.backbone = nn.Sequential()
    model.backbone.add_module("bottom_up", backbone)
    model.backbone.add_module("fpn", nn.Conv2d(3, 3, 1))
    model.head = nn.Linear(2, 2)
    return model


def timm_net(name, **options):
    with torch.device("meta"):
        return with_backbone(timm.create_model(name, features_only=True, **options))


def depths(model, **options):
    """The number of layers between a parameter and the heads."""
    return {name: round(-torch.tensor(factor).log2().item()) for name, factor in factors(model, **options).items()}


def factors(model, **options):
    return layer_factors(model, 0.5, **options)


BY_HAND = {
    "convnext_atto": {  # blocks 2, 2, 6, 2
        "stages_3.blocks.1.gamma": 1,
        "stages_3.downsample.1.weight": 2,
        "stages_3.blocks.0.norm.weight": 2,
        "stages_2.blocks.5.mlp.fc1.weight": 3,
        "stages_0.blocks.0.gamma": 12,
        "stem_0.weight": 13,
    },
    "swin_tiny_patch4_window7_224": {  # 2, 2, 6, 2
        "layers_3.blocks.1.attn.relative_position_bias_table": 1,
        "layers_3.downsample.reduction.weight": 2,
        "layers_0.blocks.0.norm1.weight": 12,
        "patch_embed.proj.weight": 13,
    },
    "regnety_002": {"s4.b7.conv1.conv.weight": 1, "s1.b1.se.fc1.weight": 13, "stem.bn.weight": 14},  # 1, 1, 4, 7
    "tf_efficientnet_lite0": {"blocks.6.0.bn1.bias": 1, "blocks.5.3.bn1.bias": 2, "conv_stem.weight": 17},  # 16 blocks
    "mobilenetv3_small_050": {"blocks.5.0.conv.weight": 1, "blocks.4.2.bn1.bias": 2, "bn1.weight": 13},  # 12 blocks
    "resnet18": {"layer4.1.bn1.weight": 1, "layer1.0.conv1.weight": 8, "conv1.weight": 9},
    "vit_tiny_patch16_224": {
        "model.blocks.11.attn.qkv.weight": 1,
        "model.blocks.0.norm1.bias": 12,
        "model.pos_embed": 13,
        "model.patch_embed.proj.weight": 13,
    },
}


@pytest.mark.parametrize("name", BY_HAND)
def test_a_timm_net_decays_block_by_block(name):
    model = timm_net(name)
    found = depths(model)
    assert {key: found[f"backbone.bottom_up.{key}"] for key in BY_HAND[name]} == BY_HAND[name]
    assert {key for key, depth in found.items() if depth == 0} == {
        "backbone.fpn.weight",
        "backbone.fpn.bias",
        "head.weight",
        "head.bias",
    }
    assert set(found.values()) == set(range(max(found.values()) + 1)), "no layer is left out"


def convnext_reference(name, blocks_of_stage_3):
    """The layers that arXiv:2201.03545 describes for detection: a layer for the stem, one for each group of up to three blocks."""
    last = 3 + blocks_of_stage_3 // 3
    _, _, stage, *rest = name.replace("_", ".").split(".")[1:]  # backbone.bottom.up.stages.2.blocks.3....
    if stage == "stem":
        return last + 1
    number, kind, block = int(rest[0]), rest[1], int(rest[2])
    block = block if kind == "blocks" else 0
    layer = {0: 1, 1: 2, 2: 3 + block // 3, 3: last}[number]
    return last + 1 - layer


@pytest.mark.parametrize(("name", "blocks"), [("convnext_tiny", 9), ("convnext_small", 27)])
def test_convnexts_layers_of_three_blocks(name, blocks):
    found = depths(timm_net(name), blocks_per_layer=3)
    ours = {key: depth for key, depth in found.items() if "bottom_up" in key}
    assert ours == {key: convnext_reference(key, blocks) for key in ours}


def test_blocks_of_a_plain_vit_are_grouped_too():
    found = depths(timm_net("vit_tiny_patch16_224"), blocks_per_layer=3)
    blocks = [found[f"backbone.bottom_up.model.blocks.{block}.norm1.weight"] for block in range(12)]
    assert blocks == [4, 4, 4, 3, 3, 3, 2, 2, 2, 1, 1, 1]
    assert found["backbone.bottom_up.model.cls_token"] == 5


@pytest.fixture(scope="module")
def resnet():
    with torch.device("meta"):
        return instantiate(get_config("mask_rcnn_r50_fpn_1x").model)


def test_detectron2s_resnet_decays_by_stage(resnet):
    stages = {"stem": 5, "res2": 4, "res3": 3, "res4": 2, "res5": 1}
    for name, depth in depths(resnet).items():
        part = name.removeprefix("backbone.bottom_up.").split(".")[0] if "bottom_up" in name else ""
        assert depth == stages.get(part, 0), name
    by_block = depths(resnet, blocks_per_layer=1)
    assert by_block["backbone.bottom_up.res4.5.conv1.weight"] == 4
    assert by_block["backbone.bottom_up.stem.conv1.weight"] == 17


def test_detectron2s_regnet():
    from detectron2.modeling.backbone.regnet import RegNet, ResBottleneckBlock, SimpleStem

    with torch.device("meta"):
        net = RegNet(
            stem_class=SimpleStem,
            stem_width=8,
            block_class=ResBottleneckBlock,
            depth=4,
            w_a=8,
            w_0=8,
            w_m=2,
            group_width=4,
            norm="BN",
        )
    found = depths(with_backbone(net))
    assert found["backbone.bottom_up.stem.conv.weight"] == max(found.values())
    stages = {name.split(".")[2]: depth for name, depth in found.items() if ".b1." in name}
    assert [*stages.values()] == [*range(len(stages), 0, -1)]


@pytest.mark.skipif(not compat.has_vit(), reason="needs Detectron2's main branch")
@pytest.mark.parametrize("residual", [(), (1,)])
def test_detectron2s_vit_has_its_own_factors_and_groups(residual):
    from detectron2.modeling import ViT
    from detectron2.modeling.backbone.vit import get_vit_lr_decay_rate

    vit = ViT(img_size=32, embed_dim=8, depth=3, num_heads=2, window_size=2, residual_block_indexes=residual)
    model = with_backbone(vit)

    def reference(name):
        return get_vit_lr_decay_rate(name, lr_decay_rate=0.7, num_layers=3)

    assert layer_factors(model, 0.7) == {name: reference(name) for name, _ in model.named_parameters()}
    options = {"base_lr": 1e-4, "weight_decay_norm": 0.0, "overrides": {"pos_embed": {"weight_decay": 0.0}}}
    ours = layer_decay_params(model, decay_rate=0.7, **options)
    assert same(ours, get_default_optimizer_params(model, lr_factor_func=reference, **options))


def same(first, second):
    """Whether groups are equal, with the same parameters in the same order."""

    def plain(groups):
        return [{**group, "params": [id(parameter) for parameter in group["params"]]} for group in groups]

    return plain(first) == plain(second)


OPTIONS = {
    "norms": {"base_lr": 0.1, "weight_decay_norm": 0.0},
    "biases": {"base_lr": 0.1, "weight_decay": 0.2, "bias_lr_factor": 2.0, "weight_decay_bias": 0.0},
    "names": {"base_lr": 0.1, "overrides": {"bias": {"lr": 0.5, "weight_decay": 0.0}}},
    "no rate": {"weight_decay_norm": 0.0},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_without_decay_the_groups_are_detectron2s(resnet, options):
    assert same(layer_decay_params(resnet, decay_rate=1, **options), get_default_optimizer_params(resnet, **options))


def test_groups_are_few_and_hold_each_trained_parameter_once(resnet):
    groups = layer_decay_params(resnet, base_lr=0.1, weight_decay_norm=0.0, decay_rate=0.5)
    held = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(held) == len(set(held))
    assert set(held) == {id(parameter) for parameter in resnet.parameters() if parameter.requires_grad}
    # res3 to res5, and the rest: the stem and res2 are frozen, and FrozenBatchNorm has no parameters
    assert sorted(group["lr"] for group in groups) == [0.1 / 8, 0.1 / 4, 0.1 / 2, 0.1]


def test_rates_and_decay_of_single_names():
    model = timm_net("convnext_atto")
    chosen = {"gamma": {"weight_decay": 0.0}, "bias": {"lr": 7.0}}
    groups = layer_decay_params(model, base_lr=1.0, weight_decay=0.1, overrides=chosen, decay_rate=0.5)
    assert set(chosen) == {"gamma", "bias"}, "the argument is not changed"
    of = {parameter: group for group in groups for parameter in group["params"]}
    stage = model.backbone.bottom_up["stages_3"].blocks[1]
    assert of[stage.gamma]["lr"] == 0.5
    assert of[stage.gamma]["weight_decay"] == 0.0
    assert of[stage.norm.weight]["weight_decay"] == 0.1
    assert of[stage.norm.bias]["lr"] == 7.0


def test_the_two_overrides_on_our_configs_and_on_detectron2s(resnet):
    overrides = ["optimizer.params._target_=maskrcnn_ext.layer_decay_params", "optimizer.params.decay_rate=0.7"]
    cfg = LazyConfig.apply_overrides(get_config("mask_rcnn_r50_fpn_1x"), overrides)
    cfg.optimizer.params.model = resnet
    assert len(instantiate(cfg.optimizer).param_groups) == 4
    del cfg.optimizer.params["base_lr"]  # as in Detectron2's own config
    with pytest.raises(InputError, match=r"add 'optimizer.params.base_lr=\$\{optimizer.lr\}'"):
        instantiate(cfg.optimizer)


@pytest.mark.parametrize("rate", [0, -0.1, 1.1])
def test_a_wrong_rate_is_an_error(rate):
    with pytest.raises(InputError, match=f"optimizer.params.decay_rate={rate}: expected"):
        layer_decay_params(nn.Module(), base_lr=1.0, decay_rate=rate)


def test_an_unknown_backbone_is_one_line():
    model = nn.Module()
    model.backbone = nn.Linear(1, 1)
    with pytest.raises(InputError, match=r"supports the layers of timm's nets and .*, not of Linear: set") as caught:
        layer_decay_params(model, base_lr=1.0, decay_rate=0.5)
    assert "\n" not in str(caught.value)
