"""Networks of timm as backbones, compared with timm's own features on equal weights."""

from pathlib import Path

import pytest
import timm
import torch
from detectron2 import model_zoo
from detectron2.config import LazyConfig, instantiate
from detectron2.structures import BitMasks, Boxes, Instances, Keypoints
from detectron2.utils.events import EventStorage
from torch import nn
from torch.nn import functional as F

from maskrcnn_ext import InputError, TimmBackbone, get_config

HIERARCHICAL = [
    "convnext_atto",
    "swin_tiny_patch4_window7_224",
    "mobilenetv4_conv_small_035",
    "mobilenetv3_small_050",
    "regnety_002",
    "tf_efficientnet_lite0",
    "hgnetv2_b0",
    "resnet10t",
]
PLAIN = [
    *("deit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"),
    *("vit_small_patch14_dinov2", "vit_small_patch16_dinov3", "eva02_tiny_patch14_224"),
]
STOCK_MEAN = torch.tensor([103.53, 116.28, 123.675]).view(3, 1, 1)


def backbone(name, **options):
    torch.manual_seed(0)
    built = TimmBackbone(name, **{"pretrained": False, **options})
    for module in built.modules():  # fresh statistics would hide mistakes
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.8, 1.2)
    return built


def picture(height, width):
    """Red, green and blue, 0 to 255."""
    return torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(0)).float()


def as_stock_model(image):
    """What Detectron2's own configs make of a picture: BGR, without its mean."""
    return (image.flip(0) - STOCK_MEAN)[None]


def as_timm(image, config):
    """timm's own transform of a picture."""
    return timm.data.create_transform(
        input_size=(3, *image.shape[1:]), mean=config["mean"], std=config["std"], crop_pct=1.0
    ).transforms[-1](image / 255)[None]


def copy_by_name(target, source):
    """Loads weights whose names differ in how timm joins them: ``stages_0.blocks`` for ``stages.0.blocks``."""
    given = {key.replace(".", "_"): value for key, value in source.state_dict().items()}
    state = {key: given[key.removeprefix("model.").replace(".", "_")] for key in target.state_dict()}
    target.load_state_dict(state)
    return target.eval()


@pytest.mark.parametrize("name", HIERARCHICAL)
def test_stock_pixels_get_the_features_of_timm(name):
    built = backbone(name).eval()
    # Windows divide the map, and are shifted on a map of one window, too: the cases in which DetectionBlock is timm's block.
    options, size = ({"always_partition": True}, (224, 224)) if "swin" in name else ({}, (64, 96))
    entries = timm.create_model(name, features_only=True, **options).feature_info
    levels = [entries.reduction().index(stride) for stride in (4, 8, 16, 32)]
    reference = copy_by_name(timm.create_model(name, features_only=True, out_indices=levels, **options), built.net)
    image = picture(*size)
    with torch.no_grad():
        found = built(as_stock_model(image))
        expected = reference(as_timm(image, built.net.pretrained_cfg))
    assert list(found) == list(built.output_shape()) == ["res2", "res3", "res4", "res5"]
    for (feature, value), reference_value in zip(found.items(), expected, strict=True):
        if "swin" in name:
            reference_value = reference_value.permute(0, 3, 1, 2)
        shape = built.output_shape()[feature]
        assert tuple(value.shape) == (1, shape.channels, *(side // shape.stride for side in size))
        torch.testing.assert_close(value, reference_value, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", PLAIN)
def test_plain_vits(name):
    built = backbone(name).eval()
    image = picture(48, 80)
    entries = built.net.pretrained_cfg
    options = {"dynamic_img_size": True}
    if "patch14" in name:  # the grid of position embeddings stays
        options |= {"patch_size": 16, "img_size": entries["input_size"][1] // 14 * 16}
    reference = timm.create_model(name, num_classes=0, **options).eval()
    reference.load_state_dict(built.net.state_dict(), strict=False)
    with torch.no_grad():
        found = built(as_stock_model(image))
        tokens = reference.forward_features(F.pad(as_timm(image, entries), (0, 16, 0, 16)))
    expected = tokens[:, reference.num_prefix_tokens :].transpose(1, 2).unflatten(2, (4, 6))
    if not name.startswith("eva02"):  # whose final norm comes after the mean of the tokens
        torch.testing.assert_close(found["res4"], expected, rtol=1e-3, atol=1e-3)
    shapes = built.output_shape()
    for feature, size in {"res2": (16, 24), "res3": (8, 12), "res4": (4, 6), "res5": (2, 3)}.items():
        assert tuple(found[feature].shape) == (1, shapes[feature].channels, *size)
    assert [shape.stride for shape in shapes.values()] == [4, 8, 16, 32]


@pytest.mark.parametrize("name", ["convnext_atto", "deit_tiny_patch16_224"])
def test_odd_sizes_are_padded(name):
    built = backbone(name).eval()
    x = torch.randn(1, 3, 33, 50) * 50
    with torch.no_grad():
        found, expected = built(x), built(F.pad(x, (0, 14, 0, 31)))
    assert built.size_divisibility == 32
    for feature, value in found.items():
        assert tuple(value.shape) == tuple(expected[feature].shape)
        torch.testing.assert_close(value, expected[feature], rtol=1e-3, atol=1e-3)


def test_some_maps_only():
    built = backbone("mobilenetv4_conv_small_035", out_features=["res3", "res4"]).eval()
    whole = backbone("mobilenetv4_conv_small_035").eval()
    assert len(built.net.blocks) < len(whole.net.blocks)
    found, expected = built(torch.ones(1, 3, 32, 32)), whole(torch.ones(1, 3, 32, 32))
    assert list(found) == ["res3", "res4"]
    assert built.size_divisibility == 16
    torch.testing.assert_close(found["res4"], expected["res4"])
    with pytest.raises(InputError, match=r"out_features=\['p2'\]"):
        backbone("convnext_atto", out_features=["p2"])


@pytest.mark.parametrize("name", ["regnety_002", "tf_efficientnet_lite0", "deit_tiny_patch16_224"])
def test_frozen_stages_rest(name):
    built = backbone(name, freeze_at=2, drop_path_rate=0.5).train()
    fixed = {key for key, parameter in built.net.named_parameters() if not parameter.requires_grad}
    before = {key: value.clone() for key, value in built.net.state_dict().items()}
    maps = built(as_stock_model(picture(64, 64)).repeat(2, 1, 1, 1))
    if not built.is_plain:
        assert not maps["res2"].requires_grad
        assert maps["res3"].requires_grad
        torch.testing.assert_close(built(as_stock_model(picture(64, 64)))["res2"][0], maps["res2"][0])
    sum(value.square().mean() for value in maps.values()).backward()
    assert fixed
    for key, parameter in built.named_parameters():
        assert (parameter.grad is None) == (key.removeprefix("net.") in fixed), key
    moved = {key for key, value in built.net.state_dict().items() if not torch.equal(value, before[key])}
    assert all("running" in key or "num_batches" in key for key in moved)
    if name == "tf_efficientnet_lite0":
        assert moved
        assert not any(key.startswith(("conv_stem", "bn1", "blocks.0.", "blocks.1.")) for key in moved)
    with pytest.raises(InputError, match="freeze_at=6"):
        backbone(name, freeze_at=6)


def test_the_kind_of_norm(caplog):
    def kinds(**options):
        modules = TimmBackbone("resnet18", **options).modules()
        return {type(module).__name__ for module in modules if "Norm" in type(module).__name__}

    assert kinds(pretrained=False) == {"BatchNorm2d"}
    assert kinds(pretrained="checkpoint") == {"FrozenBatchNorm2d"}
    assert kinds(pretrained="checkpoint", norm="BN") == {"BatchNorm2d"}
    assert kinds(pretrained=False, norm="SyncBN") == {"SyncBatchNorm"}
    assert kinds(pretrained=False, norm="FrozenBN") == {"FrozenBatchNorm2d"}
    with pytest.raises(InputError, match="norm=GN"):
        kinds(pretrained=False, norm="GN")
    with pytest.raises(InputError, match="convnext_atto has no BatchNorm"):
        backbone("convnext_atto", norm="FrozenBN")


def test_one_image_a_batch_with_live_batch_norm_is_worth_a_warning(caplog):
    built = backbone("mobilenetv4_conv_small_035")
    built(as_stock_model(picture(64, 64)).repeat(2, 1, 1, 1))
    assert not caplog.text
    built = backbone("mobilenetv4_conv_small_035")
    for _ in range(2):
        built(as_stock_model(picture(64, 64)))
    assert caplog.text.count("set model.backbone.bottom_up.norm=FrozenBN") == 1


def test_a_batch_with_one_value_a_channel_is_one_line():
    x = torch.zeros(1, 3, 32, 32)
    assert backbone("regnety_002", norm="FrozenBN").train()(x)["res5"].shape[2:] == (1, 1)
    with pytest.raises(
        InputError, match=r"regnety_002 cannot train .* 1 x 3 x 32 x 32 .*bottom_up\.norm=FrozenBN"
    ) as error:
        backbone("regnety_002")(x)
    assert "\n" not in str(error.value)


def test_a_network_that_refuses_a_size_is_one_line():
    with torch.device("meta"):
        built = TimmBackbone("halonet26t", pretrained=False).eval()
        assert built(torch.zeros(1, 3, 256, 256))["res2"].shape[2:] == (64, 64)
        with pytest.raises(
            InputError, match="halonet26t does not take images of any size: a batch of 1 x 3 x 96 x 128"
        ):
            built(torch.zeros(1, 3, 70, 97))


def test_images_of_five_channels():
    built = backbone("convnext_atto", pixel_mean=[10.0] * 5, pixel_std=[3.0] * 5, input_format="RGB")
    found = built(torch.randn(1, 5, 32, 32))
    assert found["res5"].shape[1:] == (320, 1, 1)
    torch.testing.assert_close(built.input(torch.ones(1, 5, 2, 2)), torch.ones(1, 5, 2, 2))


def test_activation_checkpointing():
    x = as_stock_model(picture(64, 64))
    gradients = []
    for enabled in (False, True):
        built = backbone("convnext_atto", activation_checkpointing=enabled)
        built(x)["res5"].square().mean().backward()
        gradients.append(built.net.stem[0].weight.grad)
    torch.testing.assert_close(*gradients)
    with pytest.raises(InputError, match=r"vgg11 has none.*train\.activation_checkpointing"):
        backbone("vgg11", activation_checkpointing=True)


def test_pixels_of_another_config_are_an_error_in_training_only(caplog):
    built = backbone("convnext_atto")
    normalised = torch.randn(1, 3, 32, 32)
    built.eval()(normalised)
    with pytest.raises(InputError, match="the model divides them"):
        built.train()(normalised)
    built(normalised)  # looks once


def test_maps_that_are_too_small_for_their_stride():
    with torch.device("meta"):
        built = TimmBackbone("legacy_xception", pretrained=False).eval()
        with pytest.raises(InputError, match=r"map res2 of 15 x 23 where a stride of 4 needs 16 x 24: .* lack padding"):
            built(torch.zeros(1, 3, 64, 96))


# Detectron2's own configs, with the two overrides.

ZOO = Path(model_zoo.get_config_file("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py")).parents[1]
SWAP = [
    "model.backbone.bottom_up._target_=maskrcnn_ext.TimmBackbone",
    "model.backbone.bottom_up.name=mobilenetv4_conv_small_035",
    "model.backbone.bottom_up.pretrained=false",
]


def batch(height=64, width=96, count=2):
    image = picture(height, width).flip(0).to(torch.uint8)  # BGR
    found = Instances((height, width))
    found.gt_boxes = Boxes(torch.tensor([[8.0, 8.0, 60.0, 60.0]]))
    found.gt_classes = torch.tensor([0])
    masks = torch.zeros(1, height, width, dtype=torch.bool)
    masks[:, 10:58, 10:58] = True
    found.gt_masks = BitMasks(masks)
    found.gt_keypoints = Keypoints(torch.rand(1, 17, 3) * 40 + torch.tensor([10.0, 10.0, 2.0]))
    return [{"image": image, "instances": found, "sem_seg": torch.zeros(height, width, dtype=torch.long)}] * count


@pytest.mark.parametrize(
    "config",
    [
        "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x",
        "COCO-InstanceSegmentation/mask_rcnn_regnety_4gf_dds_fpn_1x",
        "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x",
        "COCO-PanopticSegmentation/panoptic_fpn_R_50_1x",
        pytest.param("common/models/cascade_rcnn", marks=pytest.mark.slow),
        pytest.param("new_baselines/mask_rcnn_regnetx_4gf_dds_FPN_100ep_LSJ", marks=pytest.mark.slow),
        "cascade_mask_rcnn_r50_fpn_1x",
    ],
)
def test_two_overrides_on_a_config_train_two_steps(config):
    file = ZOO / f"{config}.py"
    cfg = LazyConfig.load(str(file)) if file.is_file() else get_config(config)
    # Frozen random weights let the losses explode; pre-trained ones are not available.
    swap = [*SWAP, "model.backbone.bottom_up.freeze_at=0"] if "freeze_at" in cfg.model.backbone.bottom_up else SWAP
    small = ["model.proposal_generator.post_nms_topk=[20,20]", "model.roi_heads.batch_size_per_image=8"]
    cfg = LazyConfig.apply_overrides(cfg, [*swap, *small])
    if "norm" in cfg.model.backbone.bottom_up:
        cfg.model.backbone.bottom_up.norm = "BN"
    torch.manual_seed(0)
    model = instantiate(cfg.model).train()
    optimizer = torch.optim.SGD(model.backbone.parameters(), 1e-4)
    before = model.backbone.bottom_up.net.conv_stem.weight.clone()
    for _ in range(2):
        optimizer.zero_grad()
        with EventStorage():
            losses = model(batch())
        sum(losses.values()).backward()
        assert all(p.grad is not None for p in model.backbone.parameters() if p.requires_grad)
        optimizer.step()
    assert not torch.equal(before, model.backbone.bottom_up.net.conv_stem.weight)
    with torch.no_grad():
        assert torch.isfinite(model.backbone(torch.zeros(1, 3, 64, 64))["p2"]).all()
    if "_R_50_FPN_1x" not in config:
        return
    expected = model.backbone.bottom_up.input(model.preprocess_image(batch(count=1)).tensor)
    transformed = as_timm(picture(64, 96), model.backbone.bottom_up.net.pretrained_cfg)
    torch.testing.assert_close(expected, transformed, rtol=1e-4, atol=1e-4)
