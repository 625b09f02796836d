"""Exports of models imported from Matterport's Mask R-CNN."""

from __future__ import annotations

import pytest

from maskrcnn_ext.interop.export.verify import Limits
from tests.helpers.calibration import images
from tests.helpers.imported_models import from_matterport
from tests.helpers.verified_exports import assert_export_passes


@pytest.fixture(scope="module")
def matterport(tmp_path_factory):
    return from_matterport(images()[0], tmp_path_factory.mktemp("matterport"))


@pytest.mark.parametrize("target", ["onnx", pytest.param("torchscript", marks=pytest.mark.slow)])
def test_matterport_models_pass(matterport, tmp_path, target):
    pytest.importorskip("onnxruntime")
    file = tmp_path / ("a.onnx" if target == "onnx" else "a.ts")
    runtime = assert_export_passes(*matterport, target, file, batched=target == "torchscript")
    assert (runtime.recipe.resize, runtime.recipe.boxes) == ("matterport", "matterport")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["pad64", "none"])
def test_matterport_models_of_other_modes_pass(tmp_path, mode):
    pytest.importorskip("openvino")
    model, mapper = from_matterport(images()[0], tmp_path, IMAGE_RESIZE_MODE=mode)
    assert_export_passes(model, mapper, "openvino", tmp_path / "a.xml", batched=True)
    model.round_boxes = True
    assert_export_passes(model, mapper, "onnx", tmp_path / "a.onnx", Limits(box=1.0))
