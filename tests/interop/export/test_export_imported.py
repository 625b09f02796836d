"""Exports of models imported from torchvision."""

from __future__ import annotations

import pytest

from tests.helpers.imported_models import from_torchvision
from tests.helpers.verified_exports import assert_export_passes


@pytest.mark.slow
def test_torchvision_models_pass(tmp_path):
    pytest.importorskip("onnxruntime")
    model, mapper = from_torchvision("maskrcnn_resnet50_fpn", tmp_path)
    runtime = assert_export_passes(model, mapper, "onnx", tmp_path / "a.onnx", batched=True)
    assert (runtime.recipe.resize, runtime.recipe.masks) == ("torchvision", "torchvision")
