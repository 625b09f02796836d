"""Checkpoints of Detectron2: which shipped config they are of, also under Caffe2's names."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from maskrcnn_ext import get_config
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.inference.predictor import Predictor
from maskrcnn_ext.interop.weights.conversion import model_shapes, write_model
from maskrcnn_ext.interop.weights.detectron2.convert import convert


def zeros_of(config):
    """All tensors of a config's model, in almost no memory."""
    return {name: torch.zeros(()).expand(shape) for name, shape in model_shapes(config).items()}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("mask_rcnn_r50_fpn_3x.py", marks=pytest.mark.slow),
        "mask_rcnn_r101_c4_3x.py",
        pytest.param("mask_rcnn_r50_dc5_3x.py", marks=pytest.mark.slow),
        pytest.param("mask_rcnn_x101_fpn_3x.py", marks=pytest.mark.slow),
        "cascade_mask_rcnn_r50_fpn_3x.py",
        pytest.param("keypoint_rcnn_r50_fpn_3x.py", marks=pytest.mark.slow),
        pytest.param("faster_rcnn_r50_fpn_3x.py", marks=pytest.mark.slow),
        "mask_rcnn_r18_fpn_scratch.py",
    ],
)
def test_the_config_is_found_by_its_shapes(name, tmp_path):
    config = get_config(name)
    config.model.roi_heads.num_classes = 7
    torch.save({"model": zeros_of(config)}, tmp_path / "source.pth")
    found = convert(tmp_path / "source.pth")
    assert found.config.model == config.model
    assert not found.report.missing
    assert found.state.keys() == zeros_of(config).keys()


def test_a_model_predicts_the_same_after_it(tmp_path):
    from detectron2.config import instantiate

    torch.manual_seed(0)
    config = get_config("mask_rcnn_r18_fpn_scratch.py")
    config.model.roi_heads.update(num_classes=3)
    config.model.roi_heads.box_predictor.test_score_thresh = 0.0
    model = instantiate(config.model).eval()
    torch.save(model.state_dict(), tmp_path / "source.pth")
    write_model(convert(tmp_path / "source.pth"), tmp_path / "out")
    overrides = ["model.roi_heads.box_predictor.test_score_thresh=0.0"]
    predictor = Predictor(tmp_path / "out/config.yaml", device="cpu", overrides=overrides)
    inputs = predictor.prepare(np.random.default_rng(0).integers(0, 255, (64, 80, 3), dtype=np.uint8))
    with torch.no_grad():
        expected, found = (one([inputs])[0]["instances"] for one in (model, predictor.model))
    assert len(found) == 100
    assert torch.equal(found.pred_boxes.tensor, expected.pred_boxes.tensor)
    assert predictor.classes.names == ("class 1", "class 2", "class 3")


def test_files_of_the_model_zoo_contain_their_pixels_and_anchors(tmp_path):
    state = {name: tensor.numpy() for name, tensor in zeros_of(get_config("faster_rcnn_r18_fpn_scratch.py")).items()}
    state["pixel_mean"] = np.float32([123.675, 116.28, 103.53]).reshape(3, 1, 1)
    state["pixel_std"] = np.float32([58.395, 57.12, 57.375]).reshape(3, 1, 1)
    cell = np.float32(
        [
            [-22.627417, -11.313708, 22.627417, 11.313708],
            [-16, -16, 16, 16],
            [-11.313708, -22.627417, 11.313708, 22.627417],
        ]
    )
    for level in range(5):
        state[f"proposal_generator.anchor_generator.cell_anchors.{level}"] = cell * 2**level
    content = {"model": state, "__author__": "Detectron2 Model Zoo"}
    (tmp_path / "zoo.pkl").write_bytes(pickle.dumps(content))
    found = convert(tmp_path / "zoo.pkl")
    assert found.config.model.input_format == found.config.dataloader.train.mapper.image_format == "RGB"
    assert found.config.model.pixel_std == [58.395, 57.12, 57.375]
    assert len(found.report.unused) == 7

    state["proposal_generator.anchor_generator.cell_anchors.4"] = cell * 8
    (tmp_path / "zoo.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match=r"cell_anchors\.4 differs from the anchors of the nearest config"):
        convert(tmp_path / "zoo.pkl")


def caffe2_name(name):
    """Detectron2's name as Caffe2 has it, for ResNet-50 FPN; the names of the model zoo of Detectron."""
    *parts, kind = name.split(".")
    end = {"weight": "w", "bias": "b"}[kind]
    if parts[-1] == "norm":
        end = {"weight": "bn_s", "bias": "bn_b"}[kind]
        parts.pop()
    last = parts[-1]
    if "bottom_up" in parts:
        if "stem" in parts:
            return f"conv1_{end}" if "bn" not in end else f"res_conv1_{end}"
        branch = {"shortcut": "1", "conv1": "2a", "conv2": "2b", "conv3": "2c"}[last]
        return f"{parts[2]}_{parts[3]}_branch{branch}_{end}"
    if last.startswith("fpn_"):
        level = int(last[-1])
        block = {2: 2, 3: 3, 4: 5, 5: 2}[level]
        return (
            f"fpn_inner_res{level}_{block}_sum{'' if level == 5 else '_lateral'}_{end}"
            if "lateral" in last
            else f"fpn_res{level}_{block}_sum_{end}"
        )
    known = {
        "conv": "conv_rpn_fpn2",
        "objectness_logits": "rpn_cls_logits_fpn2",
        "anchor_deltas": "rpn_bbox_pred_fpn2",
        "fc1": "fc6",
        "fc2": "fc7",
        "cls_score": "cls_score",
        "bbox_pred": "bbox_pred",
        "deconv": "conv5_mask",
        "predictor": "mask_fcn_logits",
    }
    return f"{known.get(last, '_[mask]_' + last[5:])}_{end}"


def test_caffe2_s_names_order_of_classes_and_folded_statistics(tmp_path):
    rng = np.random.default_rng(0)
    blobs = {}
    for name, shape in model_shapes(get_config("mask_rcnn_r50_fpn_3x.py")).items():
        if not name.endswith(("running_mean", "running_var")):
            extra = {"cls_score": 0, "bbox_pred": 4, "predictor": 1}.get(name.split(".")[-2], 0)
            blobs[caffe2_name(name)] = rng.random((shape[0] + extra, *shape[1:]), dtype=np.float32)
    blobs["fc6_w_momentum"] = np.zeros(1, np.float32)
    (tmp_path / "e2e.pkl").write_bytes(pickle.dumps({"blobs": blobs, "cfg": "MODEL: {}"}))
    found = convert(tmp_path / "e2e.pkl")
    heads = "roi_heads.box_predictor"
    np.testing.assert_array_equal(found.state[f"{heads}.cls_score.weight"], np.roll(blobs["cls_score_w"], -1, axis=0))
    np.testing.assert_array_equal(found.state[f"{heads}.bbox_pred.bias"], blobs["bbox_pred_b"][4:])
    np.testing.assert_array_equal(found.state["roi_heads.mask_head.predictor.weight"], blobs["mask_fcn_logits_w"][1:])
    np.testing.assert_array_equal(found.state["backbone.bottom_up.res4.5.conv2.weight"], blobs["res4_5_branch2b_w"])
    norm = "backbone.bottom_up.res2.0.shortcut.norm"
    assert found.state[f"{norm}.running_mean"].abs().max() == 0
    np.testing.assert_allclose(found.state[f"{norm}.running_var"], 1 - 1e-5)
    assert found.state.keys() == model_shapes(found.config).keys()
    assert set(found.report.missing.values()) == {"folded into the layer's weight and bias"}
    assert found.config.model.roi_heads.box_pooler.pooler_type == "ROIAlign"


def test_parts_that_no_config_has_are_named(tmp_path):
    state = zeros_of(get_config("mask_rcnn_r50_fpn_3x.py"))
    state["roi_heads.mask_head.extra.weight"] = torch.zeros(3)
    torch.save(state, tmp_path / "source.pth")
    with pytest.raises(InputError, match=r"cannot explain 1 key,.*extra\.weight is not used"):
        convert(tmp_path / "source.pth")


def test_a_backbone_alone_needs_no_import(tmp_path):
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps({"conv1_w": np.zeros((64, 3, 7, 7), np.float32)}))
    with pytest.raises(InputError, match=r"to use the weights of a backbone only, set train\.init_checkpoint"):
        convert(tmp_path / "R-50.pkl")
