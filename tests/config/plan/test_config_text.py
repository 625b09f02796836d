"""The written config has the values of the plan, whether read as a file or given as overrides."""

import ast

import pytest
from detectron2.config import LazyConfig
from omegaconf import OmegaConf

from maskrcnn_ext.config.check import check_config
from maskrcnn_ext.config.plan import Machine, plan, write_config
from maskrcnn_ext.config.plan.choice import Call, Target
from maskrcnn_ext.config.plan.machine import COCO, COCO_KEYPOINTS, LITE
from maskrcnn_ext.config.zoo import load_config
from tests.helpers.labelled_images import make_fingerprint

MACHINES = [
    Machine(weights=(LITE,), has_bf16=True),
    Machine(),
    Machine(gpu_memory=2**33, weights=(COCO, COCO_KEYPOINTS)),
]
DATA = [
    {"num_images": 10, "per_image": 5},
    {"sides": (9, 30), "per_image": 120, "objects": {"has_polygons_only": False, "crowded": 0.2}},
    {"objects": {"outlined": 0.0}, "classes": ("a", "b"), "counts": (480, 5)},
    {"objects": {"keypoints": ("left_ear", "right_ear", "tail")}},
    {"objects": {"keypoints": ("left_ear", "right_ear"), "outlined": 0.0}},
    {"images": {"channels": 5, "image_format": "raw", "dtype": "uint16", "mean": (1.0,) * 5, "std": (2.0,) * 5}},
    {"size": (20_000, 20_000), "num_images": 2, "per_image": 2000, "name": "coco:/a b/c's.json@/d,e"},
]


def plain(value):
    """Returns a value of a plan as a config has it."""
    if isinstance(value, Call):
        return plain({"_target_": Target(value.target), **value.arguments})
    if isinstance(value, Target):
        return value.path.rpartition(".")[2]
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, list) else value


def found(cfg, key):
    value = OmegaConf.select(cfg, key) if not key.endswith("_target_") else OmegaConf.select(cfg, key[:-9])["_target_"]
    value = OmegaConf.to_container(value, resolve=False) if OmegaConf.is_config(value) else value
    return named(value)


def named(value):
    """Returns a value with classes and functions as their last names."""
    if isinstance(value, dict):
        return {key: named(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [named(entry) for entry in value]
    if callable(value):
        return value.__name__
    return (
        value.rpartition(".")[2]
        if isinstance(value, str) and value.startswith(("maskrcnn_ext.", "detectron2."))
        else value
    )


@pytest.mark.parametrize(
    ("data", "machine"), [(data, MACHINES[i % 3]) for i, data in enumerate(DATA)], ids=range(len(DATA))
)
def test_the_file_and_the_overrides_have_the_values_of_the_plan(data, machine, tmp_path):
    made = plan(make_fingerprint(**data), machine)
    text = write_config(made, command="maskrcnn-ext configure DATA")
    file = tmp_path / "my_config.py"
    file.write_text(text)
    of_file = load_config(str(file), [])
    of_overrides = load_config(made.base, made.overrides())
    interpolated = {"model.backbone.bottom_up", "dataloader.train.sampler"}
    for key, value in ((k, v) for choice in made.choices for k, v in choice.settings.items()):
        if key in interpolated:
            continue
        assert found(of_file, key) == found(of_overrides, key) == plain(value), key
    assert max(map(len, text.splitlines())) <= 120 or "coco:" in text
    assert "_base" not in LazyConfig.load(str(file))


def test_a_person_can_read_it(tmp_path):
    text = write_config(plan(make_fingerprint(num_images=10), Machine(weights=(LITE,))))
    tree = ast.parse(text)
    assert ast.get_docstring(tree).startswith("data: 10 images with 50 objects of 1 class.")
    assert 'get_config("mask_rcnn_efficientnet_lite0_fpn_finetune.py")' in text
    assert "# model: EfficientNet-Lite0 FPN" in text
    assert "model.roi_heads.num_classes = 1" in text
    assert 'train.best = dict(metric="segm/AP")' in text


@pytest.mark.parametrize("data", [DATA[2], DATA[4]], ids=["boxes", "keypoints"])
def test_the_check_of_configs_finds_no_fault(data, tmp_path):
    file = tmp_path / "my_config.py"
    file.write_text(write_config(plan(make_fingerprint(**data), Machine())))
    faults = check_config(load_config(str(file), [])).faults
    assert all("no data set 'data' is registered" in fault for fault in faults)
