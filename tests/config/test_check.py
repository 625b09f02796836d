"""Faults of a config are found without memory for the model."""

import copy

from detectron2.modeling.poolers import ROIPooler

from maskrcnn_ext import get_config
from maskrcnn_ext.config.check import check_config
from maskrcnn_ext.config.overrides import apply_overrides


def test_a_config_without_faults_is_counted_and_not_changed():
    cfg = get_config("mask_rcnn_r18_fpn_scratch.py")
    before = copy.deepcopy(cfg)
    report = check_config(cfg)
    assert report.faults == []
    assert report.datasets == ["coco_2017_train", "coco_2017_val"]
    assert 1e7 < report.num_parameters < 2e7
    assert report.num_nodes > 20
    assert cfg == before


def test_every_fault_is_reported_at_once():
    cfg = apply_overrides(get_config("mask_rcnn_r50_fpn_1x.py"), ["train.ema.decay=2", "optimizer.lr=-1"])
    cfg.dataloader.test.dataset.names = "no_such_data"
    faults = check_config(cfg).faults
    assert len(faults) == 3
    assert all("\n" not in fault for fault in faults)


def test_a_model_with_a_broken_target_is_not_built():
    cfg = get_config("mask_rcnn_r50_fpn_1x.py")
    cfg.model.roi_heads.mask_head._target_ = "no_such_package.Head"
    report = check_config(cfg)
    assert report.num_parameters == 0
    assert len(report.faults) == 1


def test_missing_sections_are_faults():
    cfg = get_config("mask_rcnn_r50_fpn_1x.py")
    del cfg.train
    del cfg.lr_multiplier
    assert check_config(cfg).faults[:2] == ["the config has no `lr_multiplier`", "the config has no `train`"]


def test_pretrained_weights_are_not_downloaded(tmp_path):
    cfg = get_config("mask_rcnn_r18_fpn_scratch")
    bottom_up = {"_target_": "maskrcnn_ext.TimmBackbone", "name": "mobilenetv4_conv_small_035"}
    keys = {key: cfg.model[key] for key in ("pixel_mean", "pixel_std", "input_format")}
    keys["out_features"] = ["res2", "res3", "res4", "res5"]
    # The stock pooler of the config does not run on the meta device, so that the model is built on the CPU.
    cfg.model.roi_heads.box_pooler._target_ = cfg.model.roi_heads.mask_pooler._target_ = ROIPooler
    cfg.model.backbone.bottom_up = {**bottom_up, **keys, "pretrained": True}
    assert not check_config(cfg).faults
    cfg.model.backbone.bottom_up.pretrained = str(tmp_path / "a.pth")
    assert "no such file" in str(check_config(cfg).faults)
