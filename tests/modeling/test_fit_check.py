"""Parts that do not fit together are reported in one line before the first iteration."""

import copy

import pytest
from detectron2.config import LazyConfig, instantiate

from maskrcnn_ext import InputError, get_config
from maskrcnn_ext.config.check import check_config
from maskrcnn_ext.engine.main import main
from maskrcnn_ext.modeling.fit_check import check_fit

WRONG = [
    (
        "mask_rcnn_r18_fpn_scratch",
        ["mask_head._target_=maskrcnn_ext.DCTMaskHead", "mask_pooler.output_size=28"],
        "DCTMaskHead was built for RoI features of 14 x 14 and ROIPooler returns 28 x 28: "
        "set model.roi_heads.mask_pooler.output_size=14",
    ),
    (
        "mask_rcnn_r18_fpn_scratch",
        ["mask_head._target_=maskrcnn_ext.RefineMaskHead", "mask_pooler._target_=maskrcnn_ext.PreciseROIPooler"],
        "RefineMaskHead takes the feature maps and was passed the output of PreciseROIPooler",
    ),
    (
        "mask_rcnn_r18_fpn_scratch",
        ["mask_pooler._target_=maskrcnn_ext.DeformableROIPooler"],
        "DeformableROIPooler was built for 256 channels and got 128: set channels=128 on this pooler",
    ),
    (
        "mask_rcnn_r18_fpn_scratch",
        ["box_pooler._target_=maskrcnn_ext.DeformableROIPooler"],
        "DeformableROIPooler was built for 256 channels and got 128",
    ),
    (
        "mask_rcnn_r50_dc5_1x",
        ["mask_head._target_=maskrcnn_ext.BoundaryMaskHead", "mask_pooler=null"],
        r"BoundaryMaskHead was built for feature maps of strides \[4, 8, 16, 32\] and was passed res5",
    ),
]


@pytest.mark.parametrize(("config", "overrides", "message"), WRONG)
def test_incompatible_parts_are_reported_before_the_first_iteration(config, overrides, message):
    cfg = get_config(config)
    overrides = [f"model.roi_heads.{override}" for override in overrides]
    with pytest.raises(InputError, match=message) as caught:
        check_fit(instantiate(LazyConfig.apply_overrides(cfg, overrides).model))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "config", ["mask_rcnn_r50_c4_1x", "faster_rcnn_r18_fpn_scratch", "mask_keypoint_rcnn_r18_fpn_scratch"]
)
def test_models_without_our_parts_pass(config):
    check_fit(instantiate(get_config(config).model))


SWAP = [
    "model.backbone.bottom_up._target_=maskrcnn_ext.TimmBackbone",
    "model.backbone.bottom_up.name=mobilenetv4_conv_small_035",
    "model.backbone.bottom_up.pretrained=false",
    "model.backbone.bottom_up.pixel_std=[57.375,57.12,58.395]",
]
PIXELS = [
    (["model.pixel_std=[58.4,57.1,57.4]"], "set model.backbone.bottom_up.pixel_std=[58.4,57.1,57.4]"),
    (["model.input_format=RGB"], "set model.backbone.bottom_up.input_format=RGB"),
    (
        ["model.pixel_mean=[1,2,3,4]", "model.pixel_std=[1,1,1,1]"],
        "set model.backbone.bottom_up.pixel_mean=[1,2,3,4] model.backbone.bottom_up.pixel_std=[1,1,1,1]",
    ),
]


@pytest.mark.parametrize(("overrides", "advice"), PIXELS)
def test_a_backbone_that_expects_other_pixels(overrides, advice):
    cfg = LazyConfig.apply_overrides(get_config("mask_rcnn_r18_fpn_scratch"), SWAP)
    check_fit(instantiate(cfg.model))
    assert not check_config(cfg).faults
    wrong = LazyConfig.apply_overrides(copy.deepcopy(cfg), overrides)
    with pytest.raises(InputError, match=r"mean=\[") as caught:
        check_fit(instantiate(wrong.model))
    assert str(caught.value).endswith(advice)
    (fault,) = check_config(wrong).faults  # builds on the meta device
    assert fault.endswith(advice)
    right = LazyConfig.apply_overrides(wrong, advice.removeprefix("set ").split())
    check_fit(instantiate(right.model))


def test_the_training_script_reports_it_in_one_line(shapes, tmp_path, capsys):
    overrides = ["model.roi_heads.mask_head._target_=maskrcnn_ext.PointRendMaskHead", f"train.output_dir={tmp_path}"]
    overrides += [
        f"dataloader.{split}.dataset.names=coco:{shapes}@{shapes.parent}/images" for split in ("train", "test")
    ]
    assert main(["--config-file", "domains/shapes.py", "--num-gpus", "0", *overrides]) == 2
    errors = capsys.readouterr().err
    last = errors.strip().splitlines()[-1]
    assert last.startswith("error: PointRendMaskHead takes the feature maps and was passed the output of ROIPooler")
    assert "Traceback" not in errors
