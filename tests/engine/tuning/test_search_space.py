"""The dimensions fit the config: each value that can be drawn is a valid override."""

import pytest

from maskrcnn_ext.config.plan.choice import override_value
from maskrcnn_ext.config.zoo import load_config
from maskrcnn_ext.engine.tuning.search_space import changed_settings, find_dimensions

PARTS = [
    "learning rate",
    "weight decay",
    "input size",
    "mask loss",
    "mask loss weight",
    "box loss weight",
    "brightness",
    "copy-paste",
    "score threshold",
    "NMS IoU",
]


def names(cfg, pinned=()):
    return [own.name for own in find_dimensions(cfg, pinned)]


@pytest.mark.parametrize(
    ("config", "missing"),
    [
        ("mask_rcnn_r50_fpn_1x.py", {"brightness", "copy-paste"}),
        ("domains/nuclei.py", {"input size", "copy-paste"}),
        ("faster_rcnn_r18_fpn_scratch.py", {"brightness", "copy-paste", "mask loss", "mask loss weight"}),
        (
            "cascade_mask_rcnn_r50_fpn_1x.py",
            {"brightness", "copy-paste", "box loss weight", "score threshold", "NMS IoU"},
        ),
    ],
)
def test_the_dimensions_of_a_config(config, missing):
    cfg = load_config(config, [])
    found = find_dimensions(cfg)
    assert [own.name for own in found] == [name for name in PARTS if name not in missing]
    for end in ("low", "high"):
        values = {own.name: own.choices[-1] if own.choices else getattr(own, end) for own in found}
        overrides = [f"{key}={override_value(value)}" for key, value in changed_settings(found, values).items()]
        load_config(config, overrides)  # raises if one is invalid
    for own in found:
        assert own.unchanged in own.choices if own.choices else own.low <= own.unchanged <= own.high


def test_unchanged_values_set_nothing():
    found = find_dimensions(load_config("mask_rcnn_r50_fpn_1x.py", []))
    assert changed_settings(found, {own.name: own.unchanged for own in found}) == {}


def test_the_scale_changes_all_sides_alike():
    cfg = load_config("mask_rcnn_r50_fpn_1x.py", [])
    scale = next(own for own in find_dimensions(cfg) if own.name == "input size")
    assert scale.settings(0.5) == {
        "dataloader.train.mapper.augmentations.0.short_edge_length": [320, 320, 352, 384, 384, 384],
        "dataloader.train.mapper.augmentations.0.max_size": 666,
        "dataloader.test.mapper.augmentations.0.short_edge_length": 384,
        "dataloader.test.mapper.augmentations.0.max_size": 666,
    }


def test_keys_that_the_user_sets_are_not_varied():
    cfg = load_config("mask_rcnn_r50_fpn_1x.py", [])
    assert "learning rate" not in names(cfg, ["optimizer.lr"])
    assert "input size" not in names(cfg, ["dataloader.test.mapper.augmentations.0.max_size"])
    assert "input size" not in names(cfg, ["dataloader.test.mapper.augmentations"])
    assert "mask loss" not in names(cfg, ["model.roi_heads.mask_head._target_"])
    assert names(cfg, ["model.roi_heads.num_classes"]) == names(cfg)


def test_copy_paste_and_light_of_a_plan():
    paste = "{probability:0.5,level:instance}"
    light = "{_target_:detectron2.data.transforms.RandomBrightness,intensity_min:0.8,intensity_max:1.2}"
    overrides = [
        "dataloader.train._target_=maskrcnn_ext.build_train_loader",
        f"dataloader.train.copy_paste={paste}",
        f"dataloader.train.mapper.augmentations=[{light}]",
    ]
    found = {own.name: own for own in find_dimensions(load_config("mask_rcnn_r50_fpn_1x.py", overrides))}
    assert found["copy-paste"].unchanged == 0.5
    assert found["brightness"].unchanged == 0.2
    assert found["brightness"].settings(0.4) == {
        "dataloader.train.mapper.augmentations.0.intensity_min": 0.6,
        "dataloader.train.mapper.augmentations.0.intensity_max": 1.4,
    }
