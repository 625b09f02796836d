"""Detections of torchvision's models after the import, and error messages for other checkpoints."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.models import detection
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from maskrcnn_ext.data.mapping.augmentation.resizing import PlainResize
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.inference.predictor import Predictor
from maskrcnn_ext.interop.weights.conversion import write_model
from maskrcnn_ext.interop.weights.torchvision import convert as source
from tests.helpers.calibration import images, matched
from tests.helpers.torchvision_models import (
    SIZES,
    as_tensor,
    calibrated,
    saved,
    small_model,  # noqa: F401 (fixtures)
)


def full(name):
    torch.manual_seed(0)
    return getattr(detection, name)(weights=None, weights_backbone=None, **SIZES)


def predictor_of(folder):
    key = "dataloader.test.mapper.augmentations.0"
    return Predictor(
        folder / "config.yaml",
        device="cpu",
        overrides=[f"{key}.short_edge_length={SIZES['min_size']}", f"{key}.max_size={SIZES['max_size']}"],
    )


@torch.no_grad()
def assert_same(model, folder):
    write_model(source.convert(saved(model, folder)), folder / "out")
    predictor = predictor_of(folder / "out")
    for image in images():
        theirs = model([as_tensor(image)])[0]
        ours = predictor.model([predictor.prepare(image)])[0]["instances"]
        assert len(ours) > 20
        order, difference = matched(ours.pred_boxes.tensor, ours.pred_classes + 1, theirs["boxes"], theirs["labels"])
        assert difference < 0.01
        np.testing.assert_allclose(ours.scores[order], theirs["scores"], atol=1e-4)
        if "masks" in theirs:
            a, b = ours.pred_masks[order].to_dense(), theirs["masks"][:, 0] >= 0.5
            assert b.any((1, 2)).sum() > 20
            # An IoU of 0.99, or a single pixel that has a probability of 0.5.
            assert ((a ^ b).sum((1, 2)) <= torch.maximum(0.01 * (a | b).sum((1, 2)), torch.tensor(1))).all()
        if "keypoints" in theirs:
            points = ours.pred_keypoints[order][..., :2] - theirs["keypoints"][..., :2]
            # A random heat map may have two peaks of the same height.
            assert (points.abs().amax(2) < 0.01).float().mean() > 0.995
    return predictor


def test_detections_and_masks_are_torchvision_s(small_model, tmp_path):
    predictor = assert_same(small_model, tmp_path)
    assert predictor.classes.names == ("class 1", "class 2", "class 3", "class 4", "class 5")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("maskrcnn_resnet50_fpn", 90),
        ("maskrcnn_resnet50_fpn_v2", 90),
        ("keypointrcnn_resnet50_fpn", 1),
        ("fasterrcnn_resnet50_fpn", 90),
        ("fasterrcnn_resnet50_fpn_v2", 90),
    ],
)
def test_torchvision_s_own_models(name, classes, tmp_path):
    predictor = assert_same(calibrated(full(name)), tmp_path)
    # COCO's own category ids.
    assert predictor.classes.names[0] == "person"
    assert predictor.classes.category_ids == tuple(range(1, classes + 1))
    assert ("left_knee" in predictor.classes.keypoint_names) == ("keypoint" in name)
    assert bool(predictor.classes.skeleton) == ("keypoint" in name)


def test_names_before_0_13_and_wrappers_make_the_same(small_model, tmp_path):
    new = small_model.state_dict()
    old = {}
    for key, tensor in new.items():
        for now, then in (
            ("rpn.head.conv.0.0.", "rpn.head.conv."),
            *((f"mask_head.{i}.0.", f"mask_head.mask_fcn{i + 1}.") for i in range(4)),
            *((f"_blocks.{i}.0.", f"_blocks.{i}.") for i in range(4)),
        ):
            key = key.replace(now, then)
        old[f"module.{key}"] = tensor
    assert len(old.keys() & {f"module.{key}" for key in new}) == len(new) - 26
    torch.save({"model": old, "epoch": 3}, tmp_path / "old.pth")
    expected = source.convert(saved(small_model, tmp_path)).state
    found = source.convert(tmp_path / "old.pth").state
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_epsilon_of_the_source_is_kept(small_model, tmp_path):
    file = saved(small_model, tmp_path)
    state = source.convert(file, bn_eps=0.0).state
    theirs = small_model.backbone.body.bn1
    x = torch.rand(1, 64, 5, 5)
    place = "backbone.bottom_up.stem.conv1.norm"
    weights = (state[f"{place}.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
    found = nn.functional.batch_norm(x, *weights, eps=1e-5)
    exact = nn.functional.batch_norm(x, theirs.running_mean, theirs.running_var, theirs.weight, theirs.bias, eps=0.0)
    torch.testing.assert_close(found, exact)


@settings(max_examples=25, deadline=None)
@given(height=st.integers(20, 400), width=st.integers(20, 400))
def test_images_are_resized_as_torchvision_does(height, width):
    image = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    transform = GeneralizedRCNNTransform(**SIZES, image_mean=[0.0] * 3, image_std=[1.0] * 3).eval()
    expected = transform([as_tensor(image)])[0]
    resize = PlainResize(SIZES["min_size"], SIZES["max_size"], "torchvision").get_transform(image)
    found = resize.apply_image(image)
    assert found.shape[:2] == expected.image_sizes[0]
    theirs = expected.tensors[0, :, : found.shape[0], : found.shape[1]].permute(1, 2, 0) * 255
    np.testing.assert_allclose(found, theirs, atol=1e-2)
    labels = resize.apply_segmentation(image[:, :, 0])
    assert labels.shape == found.shape[:2]
    assert set(np.unique(labels)) <= set(np.unique(image[:, :, 0]))


def test_no_detections_and_an_unknown_resize(small_model, tmp_path):
    write_model(source.convert(saved(small_model, tmp_path)), tmp_path / "out")
    predictor = predictor_of(tmp_path / "out")
    predictor.model.roi_heads.box_predictor.test_score_thresh = 1.0
    found = predictor.model([predictor.prepare(images()[0])])[0]["instances"]
    assert len(found) == len(found.pred_masks) == 0
    with pytest.raises(InputError, match="style='keras'"):
        PlainResize(800, 1333, "keras")
