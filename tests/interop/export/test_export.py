"""Exported models: the graph against Detectron2, and what the runtimes make of it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from torch import nn

from maskrcnn_ext.data.mapping.augmentation.resizing import Letterbox
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.interop.export import TARGETS, Options, export
from maskrcnn_ext.interop.export.build_recipe import recipe_of
from maskrcnn_ext.interop.export.graph import Exportable, output_names
from maskrcnn_ext.interop.export.runtimes import open_model
from tests.helpers.calibration import images, matched
from tests.helpers.exported_models import detector, exported  # noqa: F401 (fixtures)
from tests.helpers.exporting import CLASSES, build, tensor

FILES = {"onnx": "a.onnx", "openvino": "a.xml", "torchscript": "a.ts", "torch-export": "a.pt2"}
SLOW = [pytest.param(target, marks=pytest.mark.slow) for target in ("openvino", "torch-export")]
GREY = np.full((96, 128, 3), 127, np.uint8)


def raw(model, image):
    """Detectron2's own inference, before anything is pasted."""
    with torch.no_grad():
        return model.inference([{"image": tensor(image)}], do_postprocess=False)[0]


@pytest.mark.parametrize("image", [*images(), GREY], ids=lambda image: "x".join(map(str, image.shape)))
def test_the_graph_is_detectron2s_inference(detector, image):
    model, _ = detector
    expected = raw(model, image)
    with torch.no_grad():
        boxes, scores, classes, masks = Exportable(model)(tensor(image))
    assert len(expected) == 100
    torch.testing.assert_close(boxes, expected.pred_boxes.tensor, rtol=0, atol=1e-4)
    torch.testing.assert_close(scores, expected.scores, rtol=0, atol=1e-6)
    assert torch.equal(classes, expected.pred_classes)
    torch.testing.assert_close(masks, expected.pred_masks[:, 0], rtol=0, atol=1e-5)


def test_the_graph_leaves_the_models_mode_alone(detector, exported):
    model, _ = detector
    exported("onnx")
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("target", ["onnx", "openvino", "torchscript"])
@pytest.mark.parametrize("image", images(), ids=lambda image: "x".join(map(str, image.shape)))
def test_runtimes_find_what_detectron2_finds_in_other_sizes_than_the_traced_one(detector, exported, target, image):
    pytest.importorskip({"onnx": "onnxruntime", "openvino": "openvino", "torchscript": "torchvision"}[target])
    model, _ = detector
    expected = raw(model, image)
    found = {
        name: torch.from_numpy(value)
        for name, value in open_model(exported(target))._run(tensor(image).numpy()).items()
    }
    order, distance = matched(found["boxes"], found["classes"], expected.pred_boxes.tensor, expected.pred_classes)
    assert distance < 2e-3
    torch.testing.assert_close(found["scores"][order], expected.scores, rtol=0, atol=1e-4)
    torch.testing.assert_close(found["masks"][order], expected.pred_masks[:, 0], rtol=0, atol=1e-3)


@pytest.mark.slow
def test_torch_export_finds_what_detectron2_finds(detector, exported):
    model, _ = detector
    runtime = open_model(exported("torch-export"))
    with pytest.raises(InputError, match="more than 64 pixels"):
        runtime._run(tensor(GREY[:64]).numpy())
    for image in (images()[0], GREY):
        expected = raw(model, image)
        found = runtime._run(tensor(image).numpy())
        order, distance = matched(
            *map(torch.from_numpy, (found["boxes"], found["classes"])),
            expected.pred_boxes.tensor,
            expected.pred_classes,
        )
        assert distance < 2e-3
        torch.testing.assert_close(
            torch.from_numpy(found["masks"])[order], expected.pred_masks[:, 0], rtol=0, atol=1e-3
        )


@pytest.mark.parametrize("target", ["onnx", "torchscript", *SLOW])
def test_nothing_found_is_empty_outputs_wherever_the_model_was_traced(detector, tmp_path, target):
    pytest.importorskip({"onnx": "onnxruntime", "openvino": "openvino"}.get(target, "torchvision"))
    model, mapper = detector
    predictor = model.roi_heads.box_predictor
    threshold, predictor.test_score_thresh = predictor.test_score_thresh, 1.5
    try:
        recipe = recipe_of(model, mapper, CLASSES)
        file = export(model, recipe, target, tmp_path / FILES[target])
    finally:
        predictor.test_score_thresh = threshold
    found = open_model(file)(images()[0])
    assert found["boxes"].shape == (0, 4)
    assert found["scores"].shape == found["classes"].shape == (0,)
    assert found["masks"] == []


def test_without_proposals_there_are_no_detections(detector, exported):
    """Infinite objectness, as of a model that has diverged, is no proposal."""
    model, _ = detector
    logits = model.proposal_generator.rpn_head.objectness_logits
    bias = logits.bias.detach().clone()
    with torch.no_grad():
        logits.bias.fill_(torch.nan)
        try:
            outputs = Exportable(model)(tensor(images()[0]))
            assert len(raw(model, images()[0])) == 0
        finally:
            logits.bias.copy_(bias)
    assert [len(output) for output in outputs] == [0, 0, 0, 0]


def test_the_recipe_is_in_the_file(detector, exported):
    onnx = pytest.importorskip("onnx")
    model, mapper = detector
    proto = onnx.load(str(exported("onnx")))
    recipe = json.loads({entry.key: entry.value for entry in proto.metadata_props}["maskrcnn_ext"])
    assert recipe["resize"] == "pillow"
    assert (recipe["short_edge"], recipe["long_edge"]) == (160, 256)
    assert recipe["class_names"] == list(CLASSES.names)
    assert recipe["category_ids"] == [1, 2, 3, 5, 8]
    assert recipe["image_format"] == "BGR"
    assert recipe["size_divisibility"] == 32
    assert recipe["output_names"] == ["boxes", "scores", "classes", "masks"]
    assert np.allclose(recipe["pixel_mean"], model.pixel_mean.flatten())
    assert open_model(exported("onnx")).recipe == recipe_of(model, mapper, CLASSES)


def test_aligned_is_kept(exported):
    onnx = pytest.importorskip("onnx")
    proto = onnx.load(str(exported("onnx")))
    (version,) = [opset.version for opset in proto.opset_import if opset.domain == ""]
    assert version >= 16
    shapes = [
        [side.dim_value or side.dim_param for side in out.type.tensor_type.shape.dim] for out in proto.graph.output
    ]
    assert shapes == [["detections", 4], ["detections"], ["detections"], ["detections", 28, 28]]
    modes = [
        attribute.s
        for node in proto.graph.node
        if node.op_type == "RoiAlign"
        for attribute in node.attribute
        if attribute.name == "coordinate_transformation_mode"
    ]
    assert modes == [b"half_pixel"] * 8  # four levels for boxes, four for masks


def test_an_opset_without_aligned_is_refused(detector, tmp_path):
    model, mapper = detector
    with pytest.raises(InputError, match="opset 11: RoIAlign would be half a pixel off"):
        export(model, recipe_of(model, mapper, CLASSES), "onnx", tmp_path / "a.onnx", Options(opset=11))
    assert not (tmp_path / "a.onnx").exists()


def test_an_unknown_target_is_refused(detector, tmp_path):
    model, mapper = detector
    with pytest.raises(InputError, match="no target 'tensorrt': expected onnx, openvino"):
        export(model, recipe_of(model, mapper, CLASSES), "tensorrt", tmp_path / "a")
    assert set(TARGETS) == {"onnx", "openvino", "torchscript", "torch-export", "opencv"}


def test_a_part_that_selects_boxes_in_its_own_way_is_refused():
    class OwnModel(nn.Module):
        pass

    with pytest.raises(InputError, match=r"OwnModel cannot be exported: model has to be a GeneralizedRCNN"):
        Exportable(OwnModel())


def test_backbones_of_one_size_are_refused(detector, monkeypatch):
    """ViTDet's, which Detectron2's main branch alone has."""
    model, _ = detector
    monkeypatch.setattr(type(model.backbone), "padding_constraints", {"square_size": 64}, raising=False)
    with pytest.raises(InputError, match="FPN cannot be exported: it takes squares of one size alone"):
        Exportable(model)


@pytest.mark.slow
@pytest.mark.parametrize("batched", [False, True])
def test_8_bits_find_most_of_it(detector, exported, tmp_path, batched):
    pytest.importorskip("onnxruntime")
    model, mapper = detector
    options = Options(calibration=images())
    file = export(model, recipe_of(model, mapper, CLASSES, batched), "onnx", tmp_path / "a.onnx", options)
    assert file.stat().st_size < 0.4 * exported("onnx").stat().st_size
    found, expected = (open_model(path)(images()[0]) for path in (file, exported("onnx")))
    near = np.abs(found["boxes"][:, None] - expected["boxes"][:20]).max(axis=2) < 8
    same = found["classes"][:, None] == expected["classes"][:20]
    assert (near & same).any(axis=0).mean() > 0.6


def test_a_mapper_that_does_more_than_resizing_is_refused(detector):
    model, mapper = detector
    augmentations = mapper.augmentations.augs
    try:
        for others in (
            [Letterbox(128, 256, pad="square")],
            [*augmentations, T.RandomFlip()],
            [T.ResizeShortestEdge((100, 200))],
        ):
            mapper.augmentations.augs = others
            with pytest.raises(InputError, match=r"dataloader\.test\.mapper\.augmentations="):
                recipe_of(model, mapper, CLASSES)
    finally:
        mapper.augmentations.augs = augmentations


def test_outputs_of_keypoint_models():
    model, _ = build("keypoint_rcnn_r18_fpn_scratch", settings=[])
    assert output_names(model) == ("boxes", "scores", "classes", "keypoint_heatmaps")
    with torch.no_grad():
        *_, heatmaps = Exportable(model)(tensor(images()[0]))
    assert heatmaps.shape[1:] == (17, 56, 56)
