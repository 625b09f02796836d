"""Exports of models imported from Matterport's Mask R-CNN."""

from __future__ import annotations

import numpy as np
import pytest

from maskrcnn_ext.interop.export import export
from maskrcnn_ext.interop.export.recipe import build_recipe
from maskrcnn_ext.interop.export.runtimes import open_model
from maskrcnn_ext.interop.export.verify import Limits, Reference, verify
from tests.helpers.calibration import images
from tests.helpers.exporting import CLASSES
from tests.helpers.imported_models import from_matterport

BLANK = np.full((96, 128, 3), 127, np.uint8)


def assert_passes(model, mapper, target, file, limits=None, batched=False):
    recipe = build_recipe(model, mapper, CLASSES, batched)
    runtime = open_model(export(model, recipe, target, file))
    shown = [(str(number), image) for number, image in enumerate([*images(), np.flip(images()[1]), BLANK])]
    results = list(verify(runtime, Reference(model, mapper), recipe, shown, limits, batch=2))
    assert [one.faults for one in results] == [[]] * len(shown), [one.line() for one in results]
    assert sum(one.expected for one in results) > 80
    return runtime


@pytest.fixture(scope="module")
def matterport(tmp_path_factory):
    return from_matterport(images()[0], tmp_path_factory.mktemp("matterport"))


@pytest.mark.parametrize("target", ["onnx", pytest.param("torchscript", marks=pytest.mark.slow)])
def test_matterport_models_pass(matterport, tmp_path, target):
    pytest.importorskip("onnxruntime")
    file = tmp_path / ("a.onnx" if target == "onnx" else "a.ts")
    runtime = assert_passes(*matterport, target, file, batched=target == "torchscript")
    assert (runtime.recipe.resize, runtime.recipe.boxes) == ("matterport", "matterport")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["pad64", "none"])
def test_matterport_models_of_other_modes_pass(tmp_path, mode):
    pytest.importorskip("openvino")
    model, mapper = from_matterport(images()[0], tmp_path, IMAGE_RESIZE_MODE=mode)
    assert_passes(model, mapper, "openvino", tmp_path / "a.xml", batched=True)
    model.round_boxes = True
    assert_passes(model, mapper, "onnx", tmp_path / "a.onnx", Limits(box=1.0))
