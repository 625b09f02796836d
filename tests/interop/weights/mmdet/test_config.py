"""Settings in the config of an MMDetection checkpoint."""

from __future__ import annotations

import pytest

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.interop.weights.mmdet.config import MMDetSettings, parse_config, read_settings

CAFFE_CONFIG = """
default_scope = 'mmdet'
model = dict(
    type='MaskRCNN',
    data_preprocessor=dict(type='DetDataPreprocessor', mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False),
    backbone=dict(type='ResNet', depth=50, style='caffe', strides=(1, 2, 2, 2), norm_cfg=dict(type='BN', requires_grad=False)),
    neck=dict(type='FPN', num_outs=5),
    rpn_head=dict(type='RPNHead', anchor_generator=dict(scales=[8], ratios=[0.5, 1.0, 2.0], strides=[4, 8, 16, 32, 64])),
    test_cfg=dict(
        rpn=dict(nms_pre=1000, max_per_img=1000, nms=dict(type='nms', iou_threshold=0.7)),
        rcnn=dict(score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5), max_per_img=100, mask_thr_binary=0.5)))
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(192, 128), keep_ratio=True)]
optimizer = make_optimizer(model, lr=-0.1 ** 2)
"""


def test_settings_that_only_the_config_has():
    text = (
        CAFFE_CONFIG.replace("scales=[8]", "scales=[4]")
        .replace("score_thr=0.05", "score_thr=0.3")
        .replace("'caffe'", "'pytorch'")
    )
    found = read_settings(parse_config(text), "x.pth")
    assert (found.anchor_scale, found.box_test, found.stride_in_1x1) == (4, (0.3, 100, 0.5), False)
    assert (found.to_rgb, list(found.std), found.scale) == (False, [1.0, 1.0, 1.0], (192, 128))


def test_config_of_version_2():
    text = """
img_norm_cfg = dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], to_rgb=False)
model = dict(type='MaskRCNN', backbone=dict(style='caffe'))
test_pipeline = [dict(type='MultiScaleFlipAug', img_scale=(1000, 600), transforms=[
    dict(type='Resize', keep_ratio=True), dict(type='Normalize', mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], to_rgb=False)])]
"""
    found = read_settings(parse_config(text), "x.pth")
    assert (found.scale, found.to_rgb, found.mean, found.std) == ((1000, 600), False, [1.0, 2.0, 3.0], [4.0, 5.0, 6.0])


def test_default_config_is_that_of_the_baselines():
    assert read_settings({"model": {"type": "FasterRCNN"}}, "x") == MMDetSettings.of_baseline("pytorch")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("'MaskRCNN'", "'CascadeRCNN'", r"model\.type='CascadeRCNN'"),
        ("(1, 2, 2, 2)", "(1, 2, 2, 1)", r"backbone\.strides=\[1, 2, 2, 1\]"),
        ("[8]", "[8, 16]", r"anchor_generator\.scales"),
        ("type='nms', iou_threshold=0.5", "type='soft_nms'", r"rcnn\.nms\.type='soft_nms'"),
        ("mask_thr_binary=0.5", "mask_thr_binary=0.4", "mask_thr_binary=0.4"),
    ],
)
def test_models_that_detectron2_has_not_are_refused(old, new, message):
    assert old in CAFFE_CONFIG
    with pytest.raises(InputError, match=message):
        read_settings(parse_config(CAFFE_CONFIG.replace(old, new)), "x.pth")


def test_values_that_repeat_others_are_refused():
    lines = ["a0 = dict(x=1)", *(f"a{n} = [a{n - 1}, a{n - 1}]" for n in range(1, 60)), "test_pipeline = a59"]
    with pytest.raises(ValueError, match="a16 has more than 100,000 values"):
        parse_config("\n".join(lines))
