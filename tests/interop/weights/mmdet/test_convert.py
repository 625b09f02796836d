"""Detections of MMDetection's models after the import, and error messages for other checkpoints."""

from __future__ import annotations

import pytest
import torch

from maskrcnn_ext.data.registry.catalog import load_dataset
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.interop.weights.conversion import write_model
from maskrcnn_ext.interop.weights.mmdet.convert import convert
from tests.helpers.mmdet_imports import NAMES, assert_same, reference, saved
from tests.helpers.mmdet_reference import STDS, MMDetMaskRCNN

CAFFE_CONFIG = """
default_scope = 'mmdet'
model = dict(
    type='MaskRCNN',
    data_preprocessor=dict(type='DetDataPreprocessor', mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False),
    backbone=dict(type='ResNet', depth=50, style='caffe', strides=(1, 2, 2, 2), norm_cfg=dict(type='BN', requires_grad=False)),
    neck=dict(type='FPN', num_outs=5),
    rpn_head=dict(type='RPNHead', anchor_generator=dict(scales=[8], ratios=[0.5, 1.0, 2.0], strides=[4, 8, 16, 32, 64])),
    test_cfg=dict(
        rpn=dict(nms_pre=1000, max_per_img=100, nms=dict(type='nms', iou_threshold=0.7)),
        rcnn=dict(score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5), max_per_img=25, mask_thr_binary=0.5)))
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(192, 128), keep_ratio=True)]
optimizer = make_optimizer(model, lr=-0.1 ** 2)
"""


@pytest.fixture(scope="module")
def caffe():
    return reference("caffe", proposals=100, detections=25)


def tiny_state():
    """All keys of a ResNet-50 model, in almost no memory."""
    with torch.device("meta"):
        model = MMDetMaskRCNN(len(NAMES), "pytorch")
    return {key: torch.zeros(()).expand(tensor.shape) for key, tensor in model.state_dict().items()}


def test_caffe_style_by_the_config_in_the_checkpoint(caffe, tmp_path):
    meta = {"cfg": CAFFE_CONFIG, "dataset_meta": {"classes": NAMES}, "mmengine_version": "0.10.4"}
    converted = convert(saved(tmp_path, caffe.state_dict(), meta=meta))
    assert converted.config.model.input_format == "BGR"
    assert converted.config.dataloader.test.mapper.augmentations[0].max_size == 192
    files = write_model(converted, tmp_path / "out")
    predictor = assert_same(caffe, tmp_path / "out")
    assert predictor.classes.names == NAMES
    assert load_dataset(f"coco:{files[2]}@{tmp_path}").classes == list(NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["resnet50", "resnext50_32x4d"])
def test_pytorch_style_by_option(backbone, tmp_path):
    model = reference("pytorch", backbone=backbone)
    write_model(convert(saved(tmp_path, model.state_dict()), style="pytorch"), tmp_path / "out")
    assert assert_same(model, tmp_path / "out").classes.names[0] == "class 1"


@pytest.mark.parametrize(("backbone", "depth"), [("resnet101", 101), ("resnext101_64x4d", 101)])
def test_other_backbones_are_recognised_by_their_shapes(backbone, depth, tmp_path):
    with torch.device("meta"):
        model = MMDetMaskRCNN(80, "pytorch", backbone=backbone)
    state = {key: torch.zeros(()).expand(tensor.shape) for key, tensor in model.state_dict().items()}
    converted = convert(saved(tmp_path, state), style="pytorch")
    stages = converted.config.model.backbone.bottom_up.stages
    assert stages.depth == depth
    assert stages.stride_in_1x1 is False
    assert (stages.get("num_groups", 1), stages.get("width_per_group", 64)) == (
        (64, 4) if "x4d" in backbone else (1, 64)
    )
    assert converted.report.unused.keys() | converted.report.used.keys() == state.keys()


@pytest.mark.parametrize(
    ("meta", "style", "message"),
    [
        ({}, None, "set --style caffe or --style pytorch"),
        ({}, "keras", "style=keras"),
        ({"cfg": CAFFE_CONFIG}, "pytorch", "contradicts the config"),
        ({"cfg": "model = dict("}, None, "cannot be read"),
        ({"cfg": "model = " + "(" * 5000}, None, "cannot be read"),
        ({"mmdet_version": "1.2.0"}, "caffe", "upgrade_model_version"),
    ],
)
def test_checkpoints_that_do_not_tell_enough(meta, style, message, tmp_path):
    with pytest.raises(InputError, match=message) as caught:
        convert(saved(tmp_path, tiny_state(), meta=meta), style=style)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: {key.replace("roi_head.bbox", "bbox"): own for key, own in state.items()}, "MMDetection 1,"),
        (
            lambda state: {key: own for key, own in state.items() if "neck" not in key},
            "not a Mask R-CNN, Faster R-CNN or cascade",
        ),
        (
            lambda state: {**state, "backbone.layer2.0.conv2_offset.weight": torch.zeros(1)},
            "conv2_offset.weight is not used",
        ),
    ],
)
def test_other_models_are_refused(change, message, tmp_path):
    with pytest.raises(InputError, match=message):
        convert(saved(tmp_path, change(tiny_state())), style="pytorch")


CASCADE_CONFIG = f"""
model = dict(
    type='CascadeRCNN',
    data_preprocessor=dict(mean=[103.53, 116.28, 123.675], std=[57.375, 57.12, 58.395], bgr_to_rgb=False),
    backbone=dict(type='RegNet', arch='regnetx_400mf', style='pytorch', strides=(2, 2, 2, 2)),
    roi_head=dict(
        type='CascadeRoIHead', num_stages=3, mask_head=dict(type='FCNMaskHead'),
        bbox_head={[{"bbox_coder": {"target_stds": list(stds)}, "type": "ConvFCBBoxHead"} for stds in STDS]}),
    test_cfg=dict(rpn=dict(nms_pre=1000, max_per_img=100), rcnn=dict(score_thr=0.05, max_per_img=25)))
"""


@pytest.fixture(scope="module")
def cascade():
    return reference("pytorch", backbone="regnet", cascade=True, order="BGR", proposals=100, detections=25)


def test_cascade_with_a_box_for_each_class(cascade, tmp_path):
    write_model(convert(saved(tmp_path, cascade.state_dict(), meta={"cfg": CASCADE_CONFIG})), tmp_path / "out")
    assert_same(cascade, tmp_path / "out")


@pytest.mark.slow
def test_cascade_with_one_box_for_all_classes_and_no_masks(tmp_path):
    model = reference("pytorch", backbone="regnet", cascade=True, agnostic=True, masks=False, order="BGR")
    write_model(convert(saved(tmp_path, model.state_dict())), tmp_path / "out")
    predictor = assert_same(model, tmp_path / "out")
    assert not predictor.model.roi_heads.mask_on


@pytest.mark.parametrize(
    ("change", "config", "message"),
    [
        (
            lambda s: {k: v for k, v in s.items() if "bbox_head.1" not in k},
            None,
            r"bbox_head are \[0, 2\]: one is missing",
        ),
        (
            lambda s: {k: v for k, v in s.items() if "mask_head.2" not in k},
            None,
            "3 roi_head.bbox_head and 2 roi_head.mask",
        ),
        (
            lambda s: {k: v for k, v in s.items() if "head.2" not in k},
            None,
            "2 box heads: expected 1 or 3 in a file without a config",
        ),
        (
            lambda s: {**s, "roi_head.bbox_head.1.fc_cls.weight": torch.zeros(9, 128)},
            None,
            "bbox_head.1 has other classes",
        ),
        (lambda s: s, CASCADE_CONFIG.replace("CascadeRCNN", "MaskRCNN"), "model.type='MaskRCNN', and its weights are"),
        (lambda s: s, CASCADE_CONFIG.replace("'RegNet'", "'ResNet'"), "model.backbone.type='ResNet', and its weights"),
        (lambda s: s, CASCADE_CONFIG.replace("'FCNMaskHead'", "'HTCMaskHead'"), r"mask_head\.type='HTCMaskHead'"),
        (lambda s: s, CASCADE_CONFIG.replace("57.375", "1.0"), "normalises images with mean="),
    ],
)
def test_cascades_that_cannot_be_imported(cascade, change, config, message, tmp_path):
    state = {key: torch.zeros(()).expand(value.shape) for key, value in cascade.state_dict().items()}
    meta = {} if config is None else {"meta": {"cfg": config}}
    with pytest.raises(InputError, match=message) as caught:
        convert(saved(tmp_path, change(state), **meta))
    assert "\n" not in str(caught.value)
