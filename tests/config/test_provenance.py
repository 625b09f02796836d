"""The origin of each value of a config: a file or an override."""

import pytest

from maskrcnn_ext import InputError
from maskrcnn_ext.config.provenance import describe_config
from maskrcnn_ext.config.zoo import config_path
from tests.conftest import ROOT


def origins(text: str) -> dict[str, tuple[str, str]]:
    """Key -> (value, origin)."""
    lines = dict(line.split(": ", 1) for line in text.splitlines())
    return {key: tuple(rest.rsplit("  # ", 1)) for key, rest in lines.items()}


@pytest.fixture(scope="module")
def nuclei():
    overrides = [
        "train.max_iter=700",
        "train.max_iter=800",
        "model.roi_heads.num_classes=3",
        "train.checkpointer={period: 500}",
    ]
    overrides += ["+train.mine={a: 1}", "model.pixel_mean.0=1", "train.ema.decay=0.9"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return origins(describe_config(str(config_path("domains/nuclei.py")), overrides))


@pytest.mark.parametrize(
    ("key", "value", "file"),
    [
        ("dataloader.train.dataset.names", "nuclei_train", "configs/common/data/nuclei.py"),
        ("dataloader.train.total_batch_size", "4", "configs/common/data/nuclei.py"),
        ("dataloader.train.mapper.is_train", "true", "configs/common/data/coco.py"),
        # The list was replaced; its second entry is equal by chance.
        ("dataloader.train.mapper.augmentations.1.horizontal", "true", "configs/common/data/nuclei.py"),
        ("dataloader.test.mapper.augmentations", "[]", "configs/common/data/nuclei.py"),
        (
            "model.proposal_generator.anchor_generator.sizes",
            "[[8], [16], [32], [64], [96]]",
            "configs/domains/nuclei.py",
        ),
        ("model.proposal_generator.nms_thresh", "0.7", "configs/common/models/mask_rcnn_fpn.py"),
        ("model.backbone.out_channels", "128", "configs/mask_rcnn_r18_fpn_scratch.py"),  # by a function that it calls
        ("optimizer.lr", "0.001", "configs/common/optim/adamw.py"),
        ("lr_multiplier.warmup_length", "0.1", "configs/common/schedule/short.py"),
        ("train.init_checkpoint", "''", "configs/mask_rcnn_r18_fpn_scratch.py"),
        ("train.log_period", "20", "configs/common/train/default.py"),
        ("train.eval_period", "500", "configs/domains/nuclei.py"),
        ("train.best.mode", "max", "default of maskrcnn_ext"),
        ("train.max_iter", "800", "override 'train.max_iter=800'"),  # the last one counts
        ("train.checkpointer.period", "500", "override 'train.checkpointer={period: 500}'"),
        ("train.checkpointer.max_to_keep", "2", "configs/common/train/default.py"),  # the mapping was merged
        ("train.mine.a", "1", "override '+train.mine={a: 1}'"),
        ("train.ema.decay", "0.9", "override 'train.ema.decay=0.9'"),
        ("model.pixel_mean", "[1, 116.28, 123.675]", "override 'model.pixel_mean.0=1'"),
        ("model.roi_heads.mask_head.num_classes", "3", "configs/common/models/mask_rcnn_fpn.py: ${..num_classes}"),
        ("model.backbone._target_", "detectron2.modeling.backbone.fpn.FPN", "configs/common/models/mask_rcnn_fpn.py"),
    ],
)
def test_the_origin_of_a_value(nuclei, key, value, file):
    assert nuclei[key] == (value, file)


def test_imports_under_another_name_and_configs_by_name_are_followed(tmp_path, monkeypatch):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/base.py").write_text("first = dict(a=1, b=2, f=lambda: 0)\nsecond = dict(a=1)\n")
    (tmp_path / "parts/middle.py").write_text("from .base import first as renamed, second\nrenamed.b = 3\n")
    top = """
from maskrcnn_ext import get_config
from detectron2 import model_zoo
from .parts.middle import renamed as mine, second
mine.c = 4
second.a = 1
train = get_config("mask_rcnn_r50_fpn_1x").train
optimizer = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py")["optimizer"]
base = get_config("mask_rcnn_r50_fpn_1x.py")
lr_multiplier = base.lr_multiplier
model = (lambda name: get_config(name))("mask_rcnn_r50_fpn_1x.py").model
"""
    (tmp_path / "top.py").write_text(top)
    monkeypatch.chdir(tmp_path)
    found = origins(describe_config("top.py", []))
    assert found["mine.a"] == ("1", "parts/base.py")
    assert found["mine.b"] == ("3", "parts/middle.py")
    assert found["mine.c"] == ("4", "top.py")
    assert found["mine.f"][1] == "parts/base.py"
    assert found["second.a"] == ("1", "parts/base.py")  # set again to what it was
    assert found["train.max_iter"] == ("90000", str(config_path("common/train/default.py").resolve()))
    assert found["model.input_format"] == ("BGR", "top.py")  # not by an import that can be followed
    assert found["lr_multiplier.warmup_method"][1].endswith("configs/common/schedule/coco.py")
    assert found["optimizer.lr"][1].endswith("configs/common/optim.py")


def test_detectron2s_own_configs_and_saved_ones(tmp_path, monkeypatch):
    from detectron2 import model_zoo

    from maskrcnn_ext import get_config
    from maskrcnn_ext.config.config_yaml import save_config

    file = model_zoo.get_config_file("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py")
    found = origins(describe_config(file, ["optimizer.lr=1"]))
    assert found["optimizer.lr"][1] == "override 'optimizer.lr=1'"
    assert found["optimizer.momentum"][1].endswith("common/optim.py")
    assert found["train.device"][1].endswith("common/train.py")
    monkeypatch.chdir(tmp_path)
    save_config(get_config("mask_rcnn_r50_fpn_1x"), "config.yaml")
    assert origins(describe_config("config.yaml", []))["train.max_iter"] == ("90000", "config.yaml")


def test_a_wrong_override_is_an_input_error():
    with pytest.raises(InputError, match=r"did you mean train\.max_iter"):
        describe_config(str(config_path("domains/nuclei.py")), ["train.max_itr=1"])
