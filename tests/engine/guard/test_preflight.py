"""Preflight warns of bad settings with the value to set, and not of the shipped configs."""

import re

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.layers import FrozenBatchNorm2d
from detectron2.solver import WarmupParamScheduler
from detectron2.solver.build import get_default_optimizer_params
from fvcore.common.param_scheduler import ConstantParamScheduler, CosineParamScheduler, MultiStepParamScheduler
from omegaconf import OmegaConf
from torch import nn

from maskrcnn_ext import TimmBackbone, compat, get_config
from maskrcnn_ext.config.settings import add_missing_settings
from maskrcnn_ext.config.zoo import list_configs
from maskrcnn_ext.engine.guard.preflight import preflight

NAMES = [name for name in list_configs() if compat.has_vit() or "vitdet" not in name]


@pytest.fixture(scope="module")
def models():
    """Models on the meta device, one for all configs that share it."""
    built = {}

    def build(name):
        model = get_config(name).model
        key = str(OmegaConf.to_container(model))
        if key not in built:
            with torch.device("cpu" if "net" in model.backbone else "meta"):
                built[key] = instantiate(model)
        return built[key]

    return build


def warnings_of(cfg, model):
    cfg.optimizer.params.model = model
    return preflight(cfg, model, instantiate(cfg.optimizer))


# A ViT cannot be built on the meta device. The others have up to 630 million weights, and equal settings.
SLOW = re.compile("vitdet_[lh]|cascade_mask_rcnn_vitdet")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if SLOW.search(name) else name for name in NAMES]
)
def test_shipped_configs_give_no_warning(name, models):
    assert warnings_of(get_config(name), models(name)) == []


LITE = "mask_rcnn_efficientnet_lite0_fpn_finetune.py"
FPN, KEYPOINT = "mask_rcnn_r50_fpn_1x.py", "keypoint_rcnn_r50_fpn_1x.py"
SMALL = "domains/shapes.py"
WARM_COSINE = L(WarmupParamScheduler)(
    scheduler=L(CosineParamScheduler)(start_value=1.0, end_value=0.0), warmup_factor=0.01, warmup_length=0.01
)
CONSTANT = L(WarmupParamScheduler)(
    scheduler=L(ConstantParamScheduler)(value=1.0), warmup_factor=0.01, warmup_length=0.01
)
RANDOM_FROZEN = {"model.backbone.bottom_up.pretrained": False, "model.backbone.bottom_up.norm": "FrozenBN"}
EARLY = {"train.early_stopping.metric": "segm/AP", "train.early_stopping.patience": 5}
STOCK = {"dataloader.evaluator._target_": "detectron2.evaluation.COCOEvaluator"}
NO_WARM_UP = L(MultiStepParamScheduler)(values=[1.0, 0.1], milestones=[9, 10])


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        (FPN, {"dataloader.train.total_batch_size": 4}, "optimizer.lr=0.02 is 4.0 times .* 4 images per step.* set optimizer.lr=0.005"),
        (FPN, {"optimizer.lr": 0.1}, "is 5.0 times .*set optimizer.lr=0.02"),
        (FPN, {"dataloader.train.total_batch_size": 2, "train.accumulate": 2}, "is 4.0 times"),
        (SMALL, {"optimizer.lr": 0.02}, "optimizer.lr=0.02 is a rate for SGD; with AdamW"),
        (FPN, {"lr_multiplier": NO_WARM_UP}, "at 100% after 10 .* set a WarmupParamScheduler around it with warmup_length=0.011"),
        (FPN, {"train.max_iter": 200}, "without a warm-up .*set lr_multiplier.warmup_length=0.1 "),
        (FPN, {"train.init_checkpoint": ""}, "53 layers are FrozenBatchNorm2d .backbone.* set train.init_checkpoint"),
        (LITE, RANDOM_FROZEN, "48 layers are FrozenBatchNorm2d .backbone.* set train.init_checkpoint"),
        (FPN, {"model.roi_heads.box_predictor.test_topk_per_image": 300, **STOCK}, "set dataloader.evaluator.max_dets_per_image=300"),
        (FPN, {"train.device": "cpu", "train.amp.enabled": True, "train.amp.dtype": "fp16"}, "set train.amp.dtype=bf16"),
        (FPN, {"train.eval_period": 0, "train.best.metric": "segm/AP"}, "train.best cannot have an effect: set train.eval_period=9000"),
        (FPN, {"train.eval_period": 90000, "train.early_stopping.metric": "segm/AP"}, "train.early_stopping cannot have an effect"),
        (FPN, {**EARLY, "train.early_stopping.patience": 11}, "falls, at 67% of .* set train.early_stopping.patience=13"),
        (SMALL, {**EARLY, "train.max_iter": 1000, "train.eval_period": 100}, "patience=5 can end the run .*, at 70% of .*patience=7"),
        (FPN, {**EARLY, "lr_multiplier": WARM_COSINE}, "falls, at 51% of .* set train.early_stopping.patience=10"),
        (FPN, {"train.deterministic": True, "train.cudnn_benchmark": True}, "train.cudnn_benchmark=true has no effect"),
    ],
)  # fmt: skip
def test_warnings_are_one_line_with_the_value_to_set(name, changes, said, models):
    cfg = get_config(name)
    for key, value in changes.items():
        OmegaConf.update(cfg, key, value, merge=False, force_add=True)
    model = changed_model(cfg, changes) or models(name)
    found = warnings_of(cfg, model)
    assert found
    assert all("\n" not in warning for warning in found)
    assert re.search(said, found[0])


def changed_model(cfg, changes):
    if not any(key.startswith("model") for key in changes):
        return None
    with torch.device("meta"):
        return instantiate(cfg.model)


@pytest.mark.parametrize(
    "changes",
    [
        {"dataloader.train.total_batch_size": 8},  # twice the linear rule
        {"dataloader.train.total_batch_size": 4, "train.accumulate": 4},
        {"dataloader.train.total_batch_size": 4, "train.clip_grad": 1.0},
        {"dataloader.train.total_batch_size": 4, "optimizer.lr": 0.005},
        {"optimizer.lr": 0.15, "optimizer.momentum": 0.0},  # one step without momentum for ten with
        {"optimizer.lr": 0.002, "lr_multiplier": NO_WARM_UP},  # fine-tuning
        {"train.max_iter": 50},  # a trial
        {"lr_multiplier": WARM_COSINE},
        {"train.eval_period": 0},
        {**EARLY, "train.early_stopping.patience": 13},
        {**EARLY, "lr_multiplier": CONSTANT},
        {"train.eval_period": 90000, "train.best.metric": "segm/AP", "train.time": 4},  # one evaluation is all there is time for
        {"train.amp.enabled": True, "train.amp.dtype": "fp16", "train.device": "cuda"},
        {
            "model.roi_heads.box_predictor.test_topk_per_image": 300,
            "dataloader.evaluator._target_": "maskrcnn_ext.COCOEvaluator",
        },
    ],
)  # fmt: skip
def test_good_settings_give_no_warning(changes, models):
    cfg = get_config(FPN)
    for key, value in changes.items():
        OmegaConf.update(cfg, key, value, merge=False, force_add=True)
    assert warnings_of(cfg, changed_model(cfg, changes) or models(FPN)) == []


def test_the_completed_keys_of_the_trainer_are_read(models):
    cfg = get_config(SMALL)
    add_missing_settings(cfg)
    assert warnings_of(cfg, models(SMALL)) == []


@pytest.mark.parametrize(
    ("test", "said"),
    [("yolo:a.yaml", True), ("yolo:./a.yaml", True), ("yolo:a.yaml@val", False), ("nothing:/a", False)],
)
def test_a_test_set_that_is_trained_on_is_named(test, said, models):
    names = {"train": {"dataset": {"names": "yolo:a.yaml"}}, "test": {"dataset": {"names": [test]}}}
    model = models(SMALL)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    found = preflight(OmegaConf.create({"dataloader": names}), model, optimizer)
    assert any(f"dataloader.test.dataset.names has {test}, which is trained on" in line for line in found) == said


class Frozen(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.stem = nn.Linear(2, 2)
        self.stem.weight.requires_grad_(False)
        self.norm = FrozenBatchNorm2d(2) if norm else nn.Identity()


@pytest.mark.parametrize(
    ("norm", "said"), [(True, "1 layers are FrozenBatchNorm2d"), (False, "1 parameters are frozen (stem.weight")]
)
def test_any_model_is_accepted(norm, said):
    model = Frozen(norm)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    assert said in preflight(OmegaConf.create({"train": {"init_checkpoint": ""}}), model, optimizer)[0]
    assert preflight(OmegaConf.create({"train": {"init_checkpoint": "a.pth"}}), model, optimizer) == []


def test_the_rate_of_most_parameters_counts():
    """Biases may have twice the rate."""
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    groups = get_default_optimizer_params(model, base_lr=0.04, bias_lr_factor=2.0, weight_decay_norm=0.0)
    optimizer = torch.optim.SGD(groups, lr=0.04, momentum=0.9)
    cfg = OmegaConf.create({"dataloader": {"train": {"total_batch_size": 16}}, "train": {"init_checkpoint": "a.pth"}})
    assert preflight(cfg, model, optimizer) == []


@pytest.mark.parametrize(("pretrained", "said"), [(True, []), ("checkpoint", ["FrozenBatchNorm2d"]), (False, [])])
def test_frozen_layers_of_a_backbone_with_its_own_weights(pretrained, said):
    cfg = get_config("mask_rcnn_r18_fpn_scratch")
    model = nn.Module()
    with torch.device("meta"):
        model.backbone = TimmBackbone("mobilenetv4_conv_small_035", pretrained=pretrained)
    model.head = nn.Conv2d(1, 1, 1)
    found = warnings_of(cfg, model)
    assert len(found) == len(said)
    assert all(text in line for text, line in zip(said, found, strict=True))
    assert not preflight(cfg, model, torch.optim.SGD(model.head.parameters(), 0.001), resumes=True)
