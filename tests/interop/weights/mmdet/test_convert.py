"""Detections of MMDetection's models after the import, and error messages for other checkpoints."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from maskrcnn_ext.data.registry.catalog import load_dataset
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.inference.predictor import Predictor
from maskrcnn_ext.interop.weights.conversion import write_model
from maskrcnn_ext.interop.weights.mmdet.convert import convert
from tests.helpers.calibration import calibrate, images, matched
from tests.helpers.mmdet_reference import MMDetMaskRCNN

NAMES = ("cat", "dog", "owl", "cow")
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


def reference(style, **options):
    torch.manual_seed(0)
    model = MMDetMaskRCNN(len(NAMES), style, **options)
    heads, rpn = model.roi_head, model.rpn_head
    return calibrate(
        model,
        lambda shown: [model.pyramid(torch.from_numpy(image).permute(2, 0, 1)[None].float() - 110) for image in shown],
        objectness=rpn.rpn_cls,
        deltas=rpn.rpn_reg,
        scores=heads.bbox_head.fc_cls,
        box_deltas=heads.bbox_head.fc_reg,
        mask_logits=heads.mask_head.conv_logits,
    )


@torch.no_grad()
def assert_same(model, folder):
    key = "dataloader.test.mapper.augmentations.0"
    predictor = Predictor(
        folder / "config.yaml", device="cpu", overrides=[f"{key}.short_edge_length=128", f"{key}.max_size=192"]
    )
    for image in images():
        boxes, scores, labels, masks = model(image)
        given = predictor.prepare(predictor.pixels(image))
        (found,) = predictor.model.inference([given], do_postprocess=False)
        probabilities = found.pred_masks[:, 0]
        found.pred_boxes.scale(given["width"] / found.image_size[1], given["height"] / found.image_size[0])
        order, difference = matched(found.pred_boxes.tensor, found.pred_classes, boxes, labels)
        assert len(order) > 20
        assert difference < 1e-3
        np.testing.assert_allclose(found.scores[order], scores, atol=1e-5)
        np.testing.assert_allclose(probabilities[order], masks, atol=1e-4)
    return predictor


@pytest.fixture(scope="module")
def caffe():
    return reference("caffe")


def tiny_state():
    """All keys of a ResNet-50 model, in almost no memory."""
    with torch.device("meta"):
        model = MMDetMaskRCNN(len(NAMES), "pytorch")
    return {key: torch.zeros(()).expand(tensor.shape) for key, tensor in model.state_dict().items()}


def saved(folder, state, **more):
    torch.save({"state_dict": state, **more}, folder / "source.pth")
    return folder / "source.pth"


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
def test_other_backbones_are_known_by_their_shapes(backbone, depth, tmp_path):
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
            "not a Mask R-CNN or Faster R-CNN",
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
