"""Official weights load: every config has the parameter names and shapes of Detectron2's own config."""

import copy
from functools import cache

import pytest
import torch
from detectron2 import model_zoo
from detectron2.config import instantiate
from detectron2.modeling import build_model
from omegaconf import DictConfig, ListConfig

from maskrcnn_ext import get_config

SEGMENTATION, KEYPOINTS, DETECTION = "COCO-InstanceSegmentation", "COCO-Keypoints", "COCO-Detection"
OFFICIAL = {
    "mask_rcnn_r50_c4_1x": f"{SEGMENTATION}/mask_rcnn_R_50_C4_1x.yaml",
    "mask_rcnn_r50_c4_3x": f"{SEGMENTATION}/mask_rcnn_R_50_C4_3x.yaml",
    "mask_rcnn_r50_dc5_1x": f"{SEGMENTATION}/mask_rcnn_R_50_DC5_1x.yaml",
    "mask_rcnn_r50_dc5_3x": f"{SEGMENTATION}/mask_rcnn_R_50_DC5_3x.yaml",
    "mask_rcnn_r50_fpn_1x": f"{SEGMENTATION}/mask_rcnn_R_50_FPN_1x.yaml",
    "mask_rcnn_r50_fpn_3x": f"{SEGMENTATION}/mask_rcnn_R_50_FPN_3x.yaml",
    "mask_rcnn_r101_c4_3x": f"{SEGMENTATION}/mask_rcnn_R_101_C4_3x.yaml",
    "mask_rcnn_r101_dc5_3x": f"{SEGMENTATION}/mask_rcnn_R_101_DC5_3x.yaml",
    "mask_rcnn_r101_fpn_3x": f"{SEGMENTATION}/mask_rcnn_R_101_FPN_3x.yaml",
    "mask_rcnn_x101_fpn_3x": f"{SEGMENTATION}/mask_rcnn_X_101_32x8d_FPN_3x.yaml",
    "cascade_mask_rcnn_r50_fpn_1x": "Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml",
    "cascade_mask_rcnn_r50_fpn_3x": "Misc/cascade_mask_rcnn_R_50_FPN_3x.yaml",
    "faster_rcnn_r50_fpn_1x": f"{DETECTION}/faster_rcnn_R_50_FPN_1x.yaml",
    "faster_rcnn_r50_fpn_3x": f"{DETECTION}/faster_rcnn_R_50_FPN_3x.yaml",
    "keypoint_rcnn_r50_fpn_1x": f"{KEYPOINTS}/keypoint_rcnn_R_50_FPN_1x.yaml",
    "keypoint_rcnn_r50_fpn_3x": f"{KEYPOINTS}/keypoint_rcnn_R_50_FPN_3x.yaml",
}


def layout(model: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


@cache
def our_model(name: str) -> torch.nn.Module:
    return build(get_config(name).model)


def build(node: DictConfig) -> torch.nn.Module:
    """A model of which only the shapes are looked at.

    The constructor of Detectron2's ViT computes with numbers: it gets real ones, and two blocks of up to 32.
    """
    if "net" not in node.backbone:
        with torch.device("meta"):
            return instantiate(node)
    node = copy.deepcopy(node)
    node.backbone.net.update(depth=2)
    return instantiate(node)


def official_yaml(name: str):
    cfg = model_zoo.get_config(OFFICIAL[name])
    cfg.MODEL.DEVICE = "meta"
    return cfg


@cache
def official_model(name: str) -> torch.nn.Module:
    with torch.device("meta"):
        return build_model(official_yaml(name))


@pytest.mark.parametrize("name", OFFICIAL)
def test_keys_and_shapes_are_the_official_ones(name):
    assert layout(our_model(name)) == layout(official_model(name))


@pytest.mark.parametrize(
    "name", ["mask_rcnn_r101_c4", "mask_rcnn_r101_dc5", "mask_rcnn_r101_fpn", "mask_rcnn_x101_fpn"]
)
def test_a_1x_config_without_official_weights_has_the_layout_of_its_3x_one(name):
    assert layout(our_model(f"{name}_1x")) == layout(official_model(f"{name}_3x"))


def test_masks_and_keypoints_together_are_the_union_of_both():
    union = {**layout(official_model("keypoint_rcnn_r50_fpn_1x"))}
    masks = layout(official_model("mask_rcnn_r50_fpn_1x"))
    union.update({key: shape for key, shape in masks.items() if ".mask_head." in key})
    # one class, a person, where COCO's masks have 80
    union["roi_heads.mask_head.predictor.weight"] = torch.Size([1, 256, 1, 1])
    union["roi_heads.mask_head.predictor.bias"] = torch.Size([1])
    assert layout(our_model("mask_keypoint_rcnn_r50_fpn_1x")) == union


def test_lsj_has_the_layout_of_the_official_lazy_config():
    # on the CPU: the official config's norm cannot be built on another device's context
    official = instantiate(model_zoo.get_config("new_baselines/mask_rcnn_R_50_FPN_100ep_LSJ.py").model)
    assert layout(our_model("mask_rcnn_r50_fpn_lsj_100ep")) == layout(official)


@pytest.mark.parametrize("name", OFFICIAL)
def test_forward_constants_are_the_official_ones(name):
    """What no weight shows: a wrong stride, weight, threshold or limit would only be seen as a lower AP."""
    ours, official = our_model(name), official_model(name)
    assert constants(ours) == constants(official)
    assert ours.input_format == official.input_format


def constants(model: torch.nn.Module) -> dict[str, object]:
    """Numbers, strings and small lists that modules and their matchers and transforms hold, by module name."""
    found = {}
    for name, module in model.named_modules():
        for key, value in plain_attributes(module).items():
            found[f"{name}.{key}"] = value
    return found


# How a model came to be built, or what only one of the two ways of building sets.
IGNORED = {"training", "vis_period", "call_super_init", "dump_patches"}
HOLDERS = ("Box2BoxTransform", "Matcher")  # no modules, but they hold constants


def plain_attributes(thing: object) -> dict[str, object]:
    found = {}
    for key, value in vars(thing).items():
        if key.startswith("_") or key in IGNORED:
            continue
        entries = [value] if type(value).__name__ in HOLDERS else value
        if isinstance(entries, (list, ListConfig)) and entries and type(entries[0]).__name__ in HOLDERS:
            for index, entry in enumerate(entries):
                found.update({f"{key}.{index}.{name}": constant for name, constant in plain_attributes(entry).items()})
        elif key == "loss_weight" and isinstance(value, dict):
            found[key] = {
                loss: weight for loss, weight in value.items() if weight != 1
            }  # a loss that is not named weighs 1
        elif is_plain(value):
            found[key] = [*value] if isinstance(value, (tuple, ListConfig)) else value
    return found


def is_plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(is_plain(entry) for entry in value.values())
    if isinstance(value, (list, tuple, ListConfig)):
        return all(is_plain(entry) for entry in value)
    return isinstance(value, (int, float, str, bool))
