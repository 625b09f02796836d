"""Exported files in their runtimes, and error messages for files that are not models."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.interop.export.runtimes import open_model
from tests.helpers.calibration import images
from tests.helpers.exported_models import detector, exported  # noqa: F401 (fixtures)
from tests.helpers.exporting import RECIPE


def test_boxes_are_in_pixels_of_the_image(exported):
    pytest.importorskip("onnxruntime")
    image = images()[0]
    found = open_model(exported("onnx"))(image)
    height, width = image.shape[:2]
    assert len(found["boxes"]) > 50
    assert (found["boxes"] >= 0).all()
    assert (found["boxes"] <= [width, height, width, height]).all()
    assert (np.diff(found["scores"]) <= 0).all()
    assert len(found["masks"]) == len(found["boxes"])
    for ((x, y), window), box in zip(found["masks"], found["boxes"], strict=True):
        assert (np.array([x, y]) <= box[:2]).all()
        assert (np.array([x, y]) + window.shape[::-1] >= box[2:]).all()


def test_a_file_that_is_no_model_is_one_line(tmp_path, exported):
    with pytest.raises(InputError, match="no such model"):
        open_model(tmp_path / "a.onnx")
    other = tmp_path / "a.engine"
    other.write_bytes(b"")
    with pytest.raises(InputError, match=r"expected \.onnx, \.xml, \.ts, \.pt2, or the folder"):
        open_model(other)
    for suffix, library in ((".onnx", "onnxruntime"), (".xml", "openvino")):
        pytest.importorskip(library)
        broken = tmp_path / f"a{suffix}"
        broken.write_bytes(b"no model")
        with pytest.raises(InputError, match=rf"a\{suffix}: .* cannot read it"):
            open_model(broken)
    script = tmp_path / "a.ts"
    script.write_bytes(b"no model")
    with pytest.raises(InputError, match=r"a\.json is missing beside it"):
        open_model(script)
    (tmp_path / "a.json").write_text(RECIPE.to_json())
    with pytest.raises(InputError, match="PyTorch cannot read it"):
        open_model(script)


@pytest.mark.parametrize(
    ("name", "library", "extra"), [("a.onnx", "onnxruntime", "onnx"), ("a.xml", "openvino", "openvino")]
)
def test_a_missing_library_is_named_with_its_extra(tmp_path, monkeypatch, name, library, extra):
    file = tmp_path / name
    file.write_bytes(b"not read")
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(InputError, match=rf'pip install "maskrcnn_ext\[{extra}\]"'):
        open_model(file)


def test_runtimes_need_no_detectron2(run_python):
    code = "import sys, maskrcnn_ext.interop.export.runtimes; print(sorted({'torch', 'detectron2'} & set(sys.modules)))"
    assert run_python("-c", code).stdout.strip() == "[]"
