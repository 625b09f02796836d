"""Faults of a config are found without memory for the model."""

import copy

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
