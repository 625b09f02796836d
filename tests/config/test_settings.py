"""The settings of this package below `train`: their defaults and valid values."""

import pytest
from omegaconf import OmegaConf

from maskrcnn_ext import InputError, get_config
from maskrcnn_ext.config.settings import SETTINGS, TRAIN, add_missing_settings, check_settings


def completed(**train):
    return add_missing_settings(
        OmegaConf.create({"train": {"amp": {"enabled": False}, **train}}, flags={"allow_objects": True})
    )


def test_values_of_the_config_win_over_defaults():
    cfg = completed(seed=7, ema={"decay": 0.99})
    assert cfg.train.seed == 7
    assert cfg.train.ema == {"decay": 0.99}
    assert cfg.train.amp == {"enabled": False, "dtype": None, "on_cpu": False}
    assert cfg.train.best == {"metric": None, "mode": "max", "evaluate": False}
    check_settings(cfg)


def test_adding_settings_twice_changes_nothing_and_shares_nothing():
    cfg = add_missing_settings(get_config("mask_rcnn_r50_fpn_1x"))
    once = OmegaConf.to_container(cfg)
    assert OmegaConf.to_container(add_missing_settings(cfg)) == once
    cfg.train.hooks.append({"_target_": "x"})
    cfg.train.best.mode = "min"
    assert TRAIN["hooks"] == []
    assert TRAIN["best"]["mode"] == "max"


def test_every_default_is_valid():
    check_settings(add_missing_settings(get_config("domains/shapes")))


def test_a_config_without_train_is_one_line():
    with pytest.raises(InputError, match="has no `train`"):
        add_missing_settings(OmegaConf.create({"model": {}}))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("amp.dtype", "float16", "train.amp.dtype=float16: expected one of null, bf16, fp16"),
        ("accumulate", 0, "a whole number, 1 or more"),
        ("accumulate", True, "a whole number, 1 or more"),
        ("accumulate", 1.5, "a whole number, 1 or more"),
        ("clip_grad", 0, "null or a number above 0"),
        ("clip_grad", float("nan"), "null or a number above 0"),
        ("activation_checkpointing", ["backbone", "neck"], "a list of backbone, box_head, mask_head, keypoint_head"),
        ("activation_checkpointing", "backbone", "a list of backbone"),
        ("hooks", [{"target": "x"}], "each with a _target_"),
        ("validation_loss", "yes", "true or false"),
        ("validation_loss", 1, "true or false"),
        ("best.metric", "", "null or a metric such as segm/AP"),
        ("best.mode", "largest", "one of max, min"),
        ("early_stopping.patience", 0, "1 or more"),
        ("early_stopping.min_delta", -0.1, "0 or more"),
        ("ema.decay", 1.0, "between 0 and 1"),
        ("lr_finder.lowest", 0.0, "a number above 0"),
        ("lr_finder.lowest", 2.0, "expected less than train.lr_finder.highest=1.0"),
        ("image_panel.count", -1, "0 or more"),
        ("writers", ["tensorboard"], "a list of wandb, mlflow"),
        ("progress", "fancy", "one of auto, bar, plain"),
        ("guard.on_fault", "ignore", "one of stop, skip, rollback"),
        ("loading.strict", None, "train.loading.strict=null: expected one of none, body, all"),
        ("loading.class_names", [1], "train.loading.class_names=.1.: expected null.*a list of names"),
        ("loader_timeout", -1, "0 .no limit. or more"),
        ("seed", None, "a whole number"),
    ],
)
def test_an_invalid_value_is_one_line_with_the_valid_ones(key, value, message):
    cfg = completed()
    OmegaConf.update(cfg, f"train.{key}", value)
    with pytest.raises(InputError, match=message) as caught:
        check_settings(cfg)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("amp.dtype", "bf16"),
        ("clip_grad", 1),
        ("activation_checkpointing", ["backbone"]),
        ("hooks", [{"_target_": "detectron2.engine.hooks.IterationTimer"}]),
        ("best.metric", "segm/AP"),
        ("ema.decay", 0.999),
        ("lr_finder.highest", 2),
        ("loading.class_names", ["a", "b"]),
        ("loader_timeout", 1.5),
        ("seed", 0),
    ],
)
def test_valid_values_pass(key, value):
    cfg = completed()
    OmegaConf.update(cfg, f"train.{key}", value)
    check_settings(cfg)


def test_our_sections_are_mappings_without_other_keys():
    with pytest.raises(InputError, match=r"train\.ema has no decai: it has decay"):
        check_settings(completed(ema={"decai": 0.9}))
    with pytest.raises(InputError, match=r"train\.ema=0\.9: expected the keys decay, as in train\.ema\.decay"):
        check_settings(completed(ema=0.9))
    check_settings(completed(amp={"enabled": True, "of_another_tool": 1}))  # Detectron2 has keys in amp, too


def test_every_setting_is_below_train():
    assert {key.split(".")[0] for key in SETTINGS} == set(TRAIN)
