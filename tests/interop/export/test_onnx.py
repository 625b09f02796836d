"""ONNX files: their metadata, operators and shapes, and 8-bit models."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.interop.export import Options, export
from maskrcnn_ext.interop.export.onnx import _fix_output_sides
from maskrcnn_ext.interop.export.recipe import build_recipe
from maskrcnn_ext.interop.export.runtimes import open_model
from maskrcnn_ext.interop.export.verify import QUANTIZED_LIMITS, Limits, default_limits
from tests.helpers.calibration import images
from tests.helpers.exported_models import detector, exported  # noqa: F401 (fixtures)
from tests.helpers.exporting import CLASSES


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
    assert open_model(exported("onnx")).recipe == build_recipe(model, mapper, CLASSES)


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
        export(model, build_recipe(model, mapper, CLASSES), "onnx", tmp_path / "a.onnx", Options(opset=11))
    assert not (tmp_path / "a.onnx").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "name", "batched"), [("onnx", "a.onnx", False), ("onnx", "a.onnx", True), ("openvino", "a.xml", False)]
)
def test_8_bits_find_most_of_it(detector, exported, tmp_path, target, name, batched):
    pytest.importorskip("onnxruntime")
    pytest.importorskip(target)
    model, mapper = detector
    options = Options(calibration=images())
    file = export(model, build_recipe(model, mapper, CLASSES, batched), target, tmp_path / name, options)
    assert sum(one.stat().st_size for one in tmp_path.iterdir()) < 0.4 * exported("onnx").stat().st_size
    models = [open_model(path) for path in (file, exported("onnx"))]
    assert [default_limits(runtime) for runtime in models] == [QUANTIZED_LIMITS, Limits()]
    found, expected = (runtime(images()[0]) for runtime in models)
    near = np.abs(found["boxes"][:, None] - expected["boxes"][:20]).max(axis=2) < 8
    same = found["classes"][:, None] == expected["classes"][:20]
    assert (near & same).any(axis=0).mean() > 0.6


def test_a_graph_whose_shapes_the_exporter_mistakes_is_one_line(tmp_path):
    onnx = pytest.importorskip("onnx")
    value = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, sides)
        for name, sides in (("x", [2]), ("scores", [2, 2]))
    ]
    node = onnx.helper.make_node("Identity", ["x"], ["scores"])
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", value[:1], value[1:])), tmp_path / "a.onnx")
    with pytest.raises(
        InputError, match=r"a\.onnx: ONNX's exporter mistakes the shape of scores.*choose another backbone"
    ):
        _fix_output_sides(tmp_path / "a.onnx", [torch.Size([2])])
