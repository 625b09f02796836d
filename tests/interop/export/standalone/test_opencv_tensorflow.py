"""The script for OpenCV with a frozen TensorFlow graph and its text, which are written here byte by byte.

These tests need neither torch nor Detectron2, and run with OpenCV 4 and 5:
`pytest --noconftest tests/interop/export/standalone/test_opencv_tensorflow.py`.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

FILE = Path(__file__).parents[4] / "maskrcnn_ext/interop/export/standalone/opencv_infer.py"
spec = importlib.util.spec_from_file_location("opencv_infer_alone", FILE)
runner = importlib.util.module_from_spec(spec)
spec.loader.exec_module(runner)

CLASSES, GRID = 3, 15


def field(number, content):
    """One field of a protocol buffer: a number, or a string of bytes."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value):
    text = b""
    while value > 127:
        text, value = text + bytes([value & 127 | 128]), value >> 7
    return text + bytes([value])


def node(name, op, inputs=(), **attributes):
    """A NodeDef; its attributes are AttrValues."""
    text = field(1, name.encode()) + field(2, op.encode()) + b"".join(field(3, one.encode()) for one in inputs)
    for key, value in attributes.items():
        text += field(5, field(1, key.encode()) + field(2, value))
    return field(1, text)


def const(name, array):
    kind = {"float32": 1, "int32": 3}[str(array.dtype)]
    shape = b"".join(field(2, field(1, side)) for side in array.shape)
    tensor = field(1, kind) + field(2, shape) + field(4, array.tobytes())
    return node(name, "Const", dtype=field(6, kind), value=field(8, tensor))


def write_graph(folder, detections, masks):
    """A graph that finds the same in every image, but for a score to which it adds a thousandth of the mean red."""
    weights = np.zeros((3, detections.size), np.float32)
    weights[0, 2] = 1e-3
    outputs = [
        ("detection_out_final", weights, detections),
        ("detection_masks", np.zeros((3, masks.size), np.float32), masks),
    ]
    graph = node("image_tensor", "Placeholder", dtype=field(6, 1))
    graph += const("axes", np.int32([1, 2]))
    graph += node("mean", "Mean", ["image_tensor", "axes"], T=field(6, 1), keep_dims=field(5, 0))
    text = 'node { name: "image_tensor" op: "Placeholder" attr { key: "dtype" value { type: DT_FLOAT } } }\n'
    text += 'node { name: "mean" op: "Mean" input: "image_tensor" input: "axes" attr { key: "keep_dims" value { b: false } } }\n'
    for name, factors, values in outputs:
        flat = values.reshape(-1)
        graph += const(f"{name}/weights", factors) + const(f"{name}/bias", flat)
        graph += const(f"{name}/shape", np.int32(values.shape))
        graph += node(
            f"{name}/matmul", "MatMul", ["mean", f"{name}/weights"], transpose_a=field(5, 0), transpose_b=field(5, 0)
        )
        graph += node(f"{name}/add", "BiasAdd", [f"{name}/matmul", f"{name}/bias"])
        graph += node(name, "Reshape", [f"{name}/add", f"{name}/shape"])
        text += f'node {{ name: "{name}/matmul" op: "MatMul" input: "mean" input: "{name}/weights" }}\n'
        text += f'node {{ name: "{name}/add" op: "BiasAdd" input: "{name}/matmul" input: "{name}/bias" }}\n'
        text += f'node {{ name: "{name}" op: "Reshape" input: "{name}/add" input: "{name}/shape" }}\n'
    (folder / "frozen_inference_graph.pb").write_bytes(graph)
    (folder / "graph.pbtxt").write_text(text)
    (folder / "labels.names").write_text("person\nbicycle\ncar\n")


@pytest.fixture
def outputs():
    """Two detections, the surer one second, and one row that is empty; masks that are a half plane of the own class."""
    detections = np.zeros((1, 1, 3, 7), np.float32)
    detections[0, 0, 0] = [0, 2, 0.6, 0.1, 0.2, 0.5, 0.6]
    detections[0, 0, 1] = [0, 0, 0.9, 0.5, 0.5, 1.0, 1.0]
    masks = np.zeros((3, CLASSES, GRID, GRID), np.float32)
    masks[0, 2, :, :8] = 1
    masks[1, 0, 8:] = 1
    return detections, masks


def test_outputs_are_read(outputs):
    found = runner.decode_tensorflow(*outputs, size=(50, 100), threshold=0.5)
    np.testing.assert_allclose(found["boxes"], [[50, 25, 100, 50], [10, 10, 50, 30]], atol=1e-4)
    np.testing.assert_allclose(found["scores"], [0.9, 0.6])
    assert found["classes"].tolist() == [0, 2]
    whole = np.zeros((2, 50, 100), bool)
    for mask, ((x, y), window) in zip(whole, found["masks"], strict=True):
        mask[y : y + window.shape[0], x : x + window.shape[1]] = window
    rows, columns = np.nonzero(whole[0])
    # The edge is at 25 + 25 * 8 / 15 = 38.3: the first pixel with its centre behind it is 38.
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (38, 49, 50, 99)
    rows, columns = np.nonzero(whole[1])
    # The edge is at 10 + 40 * 8 / 15 = 31.3.
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (10, 29, 10, 30)


def test_nothing_found(outputs):
    found = runner.decode_tensorflow(*outputs, size=(50, 100), threshold=0.95)
    assert [len(found[name]) for name in ("boxes", "scores", "classes", "masks")] == [0, 0, 0, 0]


needs_importer = pytest.mark.skipif(
    not hasattr(cv2.dnn, "readNetFromTensorflow"), reason="this OpenCV reads no TensorFlow graphs"
)


@needs_importer
def test_a_graph_runs_through_the_command(outputs, tmp_path, capsys):
    write_graph(tmp_path, *outputs)
    image = np.zeros((50, 100, 3), np.uint8)
    image[:, :, 2] = 50  # red
    cv2.imwrite(str(tmp_path / "image.png"), image)
    arguments = [
        str(tmp_path),
        str(tmp_path / "image.png"),
        "--json",
        str(tmp_path / "found.json"),
        "-o",
        str(tmp_path / "drawn.png"),
    ]
    assert runner.main([*arguments, "--threshold", "0.5"]) == 0
    assert "person" in capsys.readouterr().out
    found = json.loads((tmp_path / "found.json").read_text())
    assert [one["category_id"] for one in found["detections"]] == [1, 3]
    assert [one["score"] for one in found["detections"]] == [pytest.approx(0.9), pytest.approx(0.65)]
    assert cv2.imread(str(tmp_path / "drawn.png")).any()


@needs_importer
def test_the_new_engine_is_refused(outputs, tmp_path):
    write_graph(tmp_path, *outputs)
    with pytest.raises(runner.InputError, match="use the classic one"):
        runner.load(tmp_path, "new")


@needs_importer
def test_a_graph_that_cannot_be_read_is_one_line(tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "image.png"), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "frozen_inference_graph.pb").write_bytes(b"\x0a\xffnot a graph")
    (tmp_path / "graph.pbtxt").write_text("node {}")
    assert runner.main([str(tmp_path), str(tmp_path / "image.png")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"OpenCV {cv2.__version__} cannot read it" in error


def test_an_opencv_without_the_importer_is_reported(outputs, tmp_path, monkeypatch):
    write_graph(tmp_path, *outputs)
    monkeypatch.delattr(cv2.dnn, "readNetFromTensorflow", raising=False)
    with pytest.raises(runner.InputError, match=r"no longer reads TensorFlow's graphs: pip install"):
        runner.load(tmp_path)


def test_the_text_is_missing(outputs, tmp_path):
    write_graph(tmp_path, *outputs)
    (tmp_path / "graph.pbtxt").unlink()
    with pytest.raises(runner.InputError, match=r"expected one file \*\.pbtxt, found 0"):
        runner.load(tmp_path)
