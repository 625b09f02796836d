"""`export` for every target: the runtimes find what Detectron2 finds, one image at a time."""

from __future__ import annotations

import pytest
import torch

from maskrcnn_ext import optimize
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.interop.export import TARGETS, export
from maskrcnn_ext.interop.export.recipe import build_recipe
from maskrcnn_ext.interop.export.runtimes import open_model
from tests.helpers.calibration import images, matched
from tests.helpers.exported_models import detector, exported  # noqa: F401 (fixtures)
from tests.helpers.exporting import CLASSES, tensor

FILES = {"onnx": "a.onnx", "openvino": "a.xml", "torchscript": "a.ts", "torch-export": "a.pt2"}
SLOW = [pytest.param(target, marks=pytest.mark.slow) for target in ("openvino", "torch-export")]


def raw(model, image):
    """Detectron2's own inference, before anything is pasted."""
    with torch.no_grad():
        return model.inference([{"image": tensor(image)}], do_postprocess=False)[0]


@pytest.mark.parametrize("target", ["onnx", "openvino", "torchscript"])
@pytest.mark.parametrize("image", images(), ids=lambda image: "x".join(map(str, image.shape)))
def test_runtimes_equal_detectron2_at_other_sizes_than_the_traced_one(detector, exported, target, image):
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


@pytest.mark.parametrize("target", ["onnx", "torchscript", *SLOW])
def test_nothing_found_is_empty_outputs_wherever_the_model_was_traced(detector, tmp_path, target):
    pytest.importorskip({"onnx": "onnxruntime", "openvino": "openvino"}.get(target, "torchvision"))
    model, mapper = detector
    predictor = model.roi_heads.box_predictor
    threshold, predictor.test_score_thresh = predictor.test_score_thresh, 1.5
    try:
        recipe = build_recipe(model, mapper, CLASSES)
        file = export(model, recipe, target, tmp_path / FILES[target])
    finally:
        predictor.test_score_thresh = threshold
    found = open_model(file)(images()[0])
    assert found["boxes"].shape == (0, 4)
    assert found["scores"].shape == found["classes"].shape == (0,)
    assert found["masks"] == []


def test_an_optimized_model_is_refused(detector, tmp_path):
    model, mapper = detector
    quick, recipe = optimize(model, dtype="fp32"), build_recipe(model, mapper, CLASSES)
    for target in TARGETS:
        with pytest.raises(InputError, match="an optimized model cannot be saved, loaded or exported"):
            export(quick, recipe, target, tmp_path / "a")


def test_an_unknown_target_is_refused(detector, tmp_path):
    model, mapper = detector
    with pytest.raises(InputError, match="no target 'tensorrt': expected onnx, openvino"):
        export(model, build_recipe(model, mapper, CLASSES), "tensorrt", tmp_path / "a")
    assert set(TARGETS) == {"onnx", "openvino", "torchscript", "torch-export", "opencv"}
