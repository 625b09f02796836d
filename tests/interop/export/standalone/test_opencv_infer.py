"""The script for OpenCV against Detectron2, its parts against their references, and its error messages."""

from __future__ import annotations

import json
import statistics
import time

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as mask_util

from maskrcnn_ext.interop.export import export
from maskrcnn_ext.interop.export.standalone import opencv_infer as runner
from tests.helpers.calibration import images, matched
from tests.helpers.opencv_models import (
    build,
    exported,  # noqa: F401 (fixtures)
)

ENGINES = ["new", "classic"] if hasattr(cv2.dnn, "ENGINE_NEW") else ["auto"]


@pytest.fixture(scope="module")
def runners(exported):
    return {engine: runner.load(exported.folder, engine) for engine in ENGINES}


def dense(mask, size):
    whole = np.zeros(size, bool)
    (x, y), window = mask
    whole[y : y + window.shape[0], x : x + window.shape[1]] = window
    return whole


def check_equal(found, expected, size):
    """The same detections, within rounding."""
    order, box = matched(
        torch.from_numpy(found["boxes"]),
        torch.from_numpy(found["classes"]),
        expected.pred_boxes.tensor,
        expected.pred_classes,
    )
    assert box <= 0.05
    scores = found["scores"][order]
    assert np.abs(scores - expected.scores.numpy()).max() <= 1e-3
    assert (np.diff(found["scores"]) <= 0).all()
    for index, mask in zip(order.tolist(), expected.pred_masks.numpy(), strict=True):
        own = dense(found["masks"][index], size)
        either, differing = (own | mask).sum(), (own ^ mask).sum()
        # Of a mask of a few pixels, one is much.
        assert differing <= max(0.01 * either, 2)
    if expected.has("pred_keypoints"):
        points = expected.pred_keypoints.numpy()
        distance = np.abs(found["keypoints"][order][..., :2] - points[..., :2]).max(axis=2)
        # Where two pixels of a heatmap are equal within rounding, either may be the best.
        assert (distance > 0.05).mean() <= 0.003
        assert np.abs(found["keypoints"][order][..., 2] - points[..., 2]).max() <= 1e-3


def large_image():
    """Is made smaller: Pillow's way of it matters."""
    rng = np.random.default_rng(1)
    image = cv2.resize(rng.integers(0, 255, (30, 23, 3), dtype=np.uint8), (460, 601), interpolation=cv2.INTER_CUBIC)
    return cv2.add(image, rng.integers(0, 60, image.shape, dtype=np.uint8))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("image", [*images(), large_image()], ids=lambda image: "x".join(map(str, image.shape[:2])))
def test_detections_equal_detectron2s(exported, runners, image, engine):
    expected = exported.predict(image)
    assert len(expected) == 40
    assert 0.002 < expected.pred_masks.float().mean() < 0.5
    check_equal(runners[engine](image), expected, image.shape[:2])


@pytest.mark.parametrize("value", [0, 255])
def test_a_blank_image(exported, runners, value):
    image = np.full((90, 140, 3), value, np.uint8)
    check_equal(runners[ENGINES[0]](image), exported.predict(image), (90, 140))


def test_a_grey_image_is_one_of_three_equal_channels(runners):
    grey = images()[0][:, :, 0]
    found, expected = (runners[ENGINES[0]](image) for image in (grey, grey[:, :, None].repeat(3, axis=2)))
    np.testing.assert_array_equal(found["boxes"], expected["boxes"])


@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_found(runners, engine):
    found = runners[engine](images()[0], threshold=1.0)
    assert {name: np.shape(value) for name, value in found.items()} == {
        "boxes": (0, 4),
        "scores": (0,),
        "classes": (0,),
        "masks": (0,),
        "keypoints": (0, 17, 3),
    }


def test_no_proposals(exported, monkeypatch):
    """The network of a model that has diverged returns only NaN."""
    model = runner.load(exported.folder)
    monkeypatch.setattr(runner, "_decode", lambda deltas, *_: np.full(deltas.shape, np.nan, np.float32))
    assert len(model(images()[0])["boxes"]) == 0


def test_a_threshold_leaves_out_the_rest(runners):
    image = images()[0]
    every = runners[ENGINES[0]](image)
    limit = float(np.median(every["scores"]))
    assert len(runners[ENGINES[0]](image, limit)["boxes"]) == (every["scores"] > limit).sum()


ALONE = """
import runpy, sys
before = set(sys.modules)

class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "detectron2", "maskrcnn_ext", "PIL", "pycocotools", "scipy", "onnx"):
            raise ImportError(f"{name} is not to be imported")

sys.meta_path.insert(0, Forbid())
try:
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    found = {name.split(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)
    print("imported:", sorted(found - {"_distutils_hack", "cv2", "numpy", "numpy_distutils"}), file=sys.stderr)
"""


def test_the_copy_runs_without_anything_else(exported, run_python, tmp_path):
    image = images()[0]
    cv2.imwrite(str(tmp_path / "image.png"), image)
    script = exported.folder / "opencv_infer.py"
    arguments = [exported.folder, "image.png", "--json", "found.json", "-o", "drawn.jpg", "--threshold", "0.05"]
    process = run_python("-c", ALONE, script, *arguments)
    assert process.returncode == 0, process.stderr
    assert "imported: []" in process.stderr
    expected = exported.predict(image)
    assert process.stdout.endswith(f"{len(expected)} objects\n")
    content = json.loads((tmp_path / "found.json").read_text())
    assert (content["height"], content["width"]) == image.shape[:2]
    first = content["detections"][0]
    x0, y0, x1, y1 = expected.pred_boxes.tensor[0].tolist()
    np.testing.assert_allclose(first["bbox"], [x0, y0, x1 - x0, y1 - y0], atol=0.05)
    assert first["category_id"] == 10 * (int(expected.pred_classes[0]) + 1)
    assert first["class"] == f"kind {int(expected.pred_classes[0])}"
    assert len(first["keypoints"]) == 51
    mask = mask_util.decode(first["segmentation"])
    assert (mask != expected.pred_masks[0].numpy()).mean() <= 1e-3
    drawn = cv2.imread(str(tmp_path / "drawn.jpg"))
    assert drawn.shape == image.shape
    assert np.abs(drawn.astype(int) - image).mean() > 1


@pytest.mark.parametrize(
    ("old", "new"),
    [((60, 80), (31, 47)), ((31, 47), (60, 80)), ((50, 50), (50, 17)), ((7, 90), (1, 90)), ((9, 4), (9, 4))],
)
def test_resizing_is_pillows(old, new):
    image = np.random.default_rng(0).integers(0, 256, (*old, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(image).resize(new[::-1], Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(runner._resize_as_pillow(image, *new), expected)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**20), ratio=st.sampled_from([0, 1, 2]), aligned=st.booleans(), bins=st.sampled_from([7, 14])
)
def test_pooling_is_torchvisions(seed, ratio, aligned, bins):
    from torchvision.ops import roi_align

    rng = np.random.default_rng(seed)
    features = rng.normal(size=(12, 17, 3)).astype(np.float32)
    corners = rng.uniform(-40, 110, (9, 4))
    boxes = np.concatenate([np.minimum(corners[:, :2], corners[:, 2:]), np.maximum(corners[:, :2], corners[:, 2:])], 1)
    boxes[0, 2:] = boxes[0, :2]
    boxes = boxes.astype(np.float32)
    rule = {"output_size": [bins, bins], "scales": [0.2], "sampling_ratio": ratio, "aligned": aligned}
    tensor = torch.from_numpy(features.transpose(2, 0, 1))[None]
    expected = roi_align(tensor, [torch.from_numpy(boxes)], bins, 0.2, ratio, aligned)
    np.testing.assert_allclose(runner.pool([features], boxes, rule), expected.numpy(), atol=2e-5)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**20), number=st.integers(0, 60))
def test_suppression_is_torchvisions(seed, number):
    from torchvision.ops.boxes import _batched_nms_vanilla

    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 20, (number, 2))
    boxes = np.concatenate([corner, corner + rng.choice([0, 5, 10, 20], (number, 2))], axis=1).astype(np.float32)
    scores = rng.permutation(number).astype(np.float32) - 10
    groups = rng.integers(0, 3, number)
    expected = _batched_nms_vanilla(*(torch.from_numpy(array) for array in (boxes, scores, groups)), 0.4)
    assert runner.suppress(boxes, scores, groups, 0.4).tolist() == expected.tolist()


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_masks_are_encoded_as_pycocotools_does(data):
    height, width = (data.draw(st.integers(1, 12)) for _ in range(2))
    x0, y0 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    shape = (data.draw(st.integers(0, height - y0)), data.draw(st.integers(0, width - x0)))
    bits = data.draw(st.lists(st.booleans(), min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]))
    mask = (x0, y0), np.array(bits, bool).reshape(shape)
    expected = mask_util.encode(np.asfortranarray(dense(mask, (height, width)), dtype=np.uint8))
    assert runner.encode(mask, (height, width)) == {"size": [height, width], "counts": expected["counts"].decode()}


def test_masks_are_pasted_as_detectron2_does():
    from maskrcnn_ext.ops.mask_paste import paste_to_rle

    rng = np.random.default_rng(0)
    grids = rng.random((30, 28, 28)).astype(np.float32)
    corners = rng.uniform(-5, 130, (30, 4)).astype(np.float32)
    boxes = np.concatenate(
        [np.minimum(corners[:, :2], corners[:, 2:]), np.maximum(corners[:, :2], corners[:, 2:]) + 1], 1
    )
    boxes = np.clip(boxes, 0, np.float32([120, 110, 120, 110]))
    boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]  # others have no mask
    assert len(boxes) > 20
    grids = grids[: len(boxes)]
    for threshold in (0.2, 0.5):
        expected = paste_to_rle(torch.from_numpy(grids), torch.from_numpy(boxes), (110, 120), threshold)
        for grid, box, rle in zip(grids, boxes, expected, strict=True):
            pasted = dense(runner.paste(grid, box, (110, 120), threshold), (110, 120))
            assert (pasted != mask_util.decode(rle)).sum() <= 1  # a pixel at the threshold


def test_pasting_in_strips_is_the_same(monkeypatch):
    grid = np.random.default_rng(0).random((28, 28)).astype(np.float32)
    box = np.float32([3, 5, 90, 88])
    (_, whole) = runner.paste(grid, box, (100, 100), 0.5)
    monkeypatch.setattr(runner, "_STRIP", 200)
    np.testing.assert_array_equal(runner.paste(grid, box, (100, 100), 0.5)[1], whole)


def test_rois_in_chunks_are_the_same(runners, monkeypatch):
    model, image = runners[ENGINES[0]], images()[1]
    whole = model(image)
    monkeypatch.setattr(runner, "_CHUNK", 128 * 14 * 14 * 30)
    found = model(image)
    np.testing.assert_allclose(found["boxes"], whole["boxes"], atol=0.01)


def fails(capsys, *arguments):
    assert runner.main([str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("opencv_infer.py: error: ")
    assert error.count("\n") == 1
    return error


@pytest.fixture
def picture(tmp_path):
    cv2.imwrite(str(tmp_path / "image.png"), images()[1])
    return tmp_path / "image.png"


def test_images_that_cannot_be_read(exported, tmp_path, capsys):
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").touch()
    for name, reason in (("text.png", "not an image"), ("empty.png", "not an image"), ("none.png", "No such file")):
        assert reason in fails(capsys, exported.folder, tmp_path / name)


def test_outputs_that_cannot_be_written(exported, picture, tmp_path, capsys):
    assert "use a name that ends in .png" in fails(capsys, exported.folder, picture, "-o", tmp_path / "a.xyz")
    for option, name in (("-o", "a.png"), ("--json", "a.json")):
        assert "cannot be written" in fails(capsys, exported.folder, picture, option, tmp_path / "none" / name)


def test_folders_that_are_no_model(exported, picture, tmp_path, capsys):
    assert "no such folder" in fails(capsys, tmp_path / "none", picture)
    folder = tmp_path / "model"
    folder.mkdir()
    assert "model.json: no such file: give the folder" in fails(capsys, folder, picture)
    parameters = json.loads((exported.folder / "model.json").read_text())
    for text, reason in (
        ("{}", "not written by"),
        ("[", "not written by"),
        (json.dumps({**parameters, "format": 99}), "has format 99"),
        (json.dumps(parameters), "trunk.onnx: no such file"),
    ):
        (folder / "model.json").write_text(text)
        assert reason in fails(capsys, folder, picture)
    (folder / "trunk.onnx").write_bytes(b"nothing")
    assert "cannot read it" in fails(capsys, folder, picture)


def test_opencv_itself_reports_no_fault_of_a_damaged_file(exported, picture, run_python, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for file in exported.folder.iterdir():
        (folder / file.name).write_bytes(
            file.read_bytes()[:100_000] if file.name == "trunk.onnx" else file.read_bytes()
        )
    process = run_python(folder / "opencv_infer.py", folder, picture)
    assert process.returncode == 2
    assert process.stderr.startswith("opencv_infer.py: error: ")
    assert process.stderr.count("\n") == 1


def test_missing_engines(exported, monkeypatch):
    with pytest.raises(runner.InputError, match="engine 'fast': expected auto, new, classic"):
        runner.load(exported.folder, "fast")
    monkeypatch.delattr(cv2.dnn, "ENGINE_NEW", raising=False)
    with pytest.raises(runner.InputError, match="has the classic engine only"):
        runner.load(exported.folder, "new")


@pytest.mark.parametrize(
    "image", [None, np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)]
)
def test_arrays_that_are_no_images(runners, image):
    with pytest.raises(runner.InputError, match="expected an image"):
        runners[ENGINES[0]](image)


def check_near(found, expected, size):
    """The same detections of a deep network of random weights: it makes much of rounding, in ONNX Runtime as well."""
    assert len(found["boxes"]) == len(expected)
    order, box = matched(
        torch.from_numpy(found["boxes"]),
        torch.from_numpy(found["classes"]),
        expected.pred_boxes.tensor,
        expected.pred_classes,
    )
    assert box <= 0.5
    assert np.abs(found["scores"][order] - expected.scores.numpy()).max() <= 1e-3
    own = np.stack([dense(found["masks"][index], size) for index in order.tolist()])
    masks = expected.pred_masks.numpy()
    assert (own & masks).sum() >= 0.97 * (own | masks).sum()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mask_rcnn_r50_c4_1x.py", "mask_rcnn_r50_dc5_1x.py"])
def test_one_level_models(name, tmp_path):
    model, recipe, predict = build(name, thaw=True, num_classes=4)
    export(model, recipe, "opencv", tmp_path)
    found = runner.load(tmp_path)
    for image in images():
        check_near(found(image), predict(image), image.shape[:2])


@pytest.mark.slow
def test_full_size(tmp_path):
    """R50-FPN, 800 x 1067, against eager PyTorch with the same threads, in turn."""
    model, recipe, predict = build("mask_rcnn_r50_fpn_1x.py", edges=(800, 1333), thaw=True, top=100, fpn_norm="BN")
    export(model, recipe, "opencv", tmp_path)
    image = cv2.resize(large_image()[:345], (640, 480), interpolation=cv2.INTER_CUBIC)
    cv2.setNumThreads(torch.get_num_threads())
    expected = predict(image)
    contenders = {"pytorch": predict, **{engine: runner.load(tmp_path, engine) for engine in ENGINES}}
    for engine in ENGINES:
        check_near(contenders[engine](image), expected, image.shape[:2])
    seconds = {name: [] for name in contenders}
    for _ in range(3):
        for name, run in contenders.items():
            begun = time.perf_counter()
            run(image)
            seconds[name].append(time.perf_counter() - begun)
    print(
        {name: round(statistics.median(values), 2) for name, values in seconds.items()},
        torch.get_num_threads(),
        "threads",
    )


def test_labels_are_legible_on_masks_and_at_the_edge_of_the_picture():
    boxes = np.array([[2, 0, 60, 40], [0, 0, 200, 100]], np.float32)
    masks = [((0, 0), np.ones((100, 200), bool))] * 2
    found = {"boxes": boxes, "scores": np.array([0.9, 0.8]), "classes": np.zeros(2, int), "masks": masks}
    picture = runner.draw(np.full((100, 200, 3), 255, np.uint8), found, ["disc"])
    rows = np.flatnonzero((picture < 40).all(axis=2).any(axis=1))  # the letters
    assert rows.size
    assert rows.min() > 0, "not cut off above"
