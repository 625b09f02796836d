"""Preparing images, running exported files, and drawing what they give."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.layers.mask_ops import paste_masks_in_image
from detectron2.structures.keypoints import heatmaps_to_keypoints
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn_ext.data.mapping.augmentation.resizing import PlainResize
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.interop.export.recipe import Recipe
from maskrcnn_ext.interop.export.runtimes import open_model
from maskrcnn_ext.interop.export.standalone.paste import keypoints, paste, whole
from tests.helpers.calibration import images
from tests.helpers.exported_models import detector, exported  # noqa: F401 (fixtures)
from tests.helpers.exporting import RECIPE


@pytest.mark.parametrize(
    ("rule", "augmentation"),
    [
        ("pillow", T.ResizeShortestEdge(160, 256)),
        ("torchvision", PlainResize(160, 256, "torchvision")),
        ("opencv", PlainResize(160, 256, "opencv")),
    ],
)
@pytest.mark.parametrize("size", [(150, 180), (333, 97), (70, 64), (160, 160)])
def test_images_are_resized_as_the_mapper_does(rule, augmentation, size):
    image = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    expected = augmentation.get_transform(image).apply_image(image)
    recipe = dataclasses.replace(RECIPE, resize=rule, short_edge=160, long_edge=256)
    prepared = recipe.prepare(image)
    assert prepared.dtype == np.float32
    assert prepared.shape[1:] == expected.shape[:2]
    assert np.abs(prepared - expected.transpose(2, 0, 1)).max() <= (1e-4 if rule == "torchvision" else 0)


@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(1, 1200), st.integers(1, 2000))
@settings(max_examples=200)
def test_sizes_are_detectron2s(height, width, short_edge, long_edge):
    recipe = dataclasses.replace(RECIPE, resize="pillow", short_edge=short_edge, long_edge=long_edge)
    expected = T.ResizeShortestEdge.get_output_shape(height, width, short_edge, long_edge)
    assert recipe.resized_sides(height, width) == expected


def test_channels_are_arranged():
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert np.array_equal(RECIPE.prepare(image)[0], image[:, :, 0])
    assert np.array_equal(dataclasses.replace(RECIPE, image_format="RGB").prepare(image)[0], image[:, :, 2])
    grey = dataclasses.replace(RECIPE, image_format="L", pixel_mean=(1.0,), pixel_std=(1.0,))
    assert grey.prepare(image[:, :, 0]).shape == (1, 2, 2)
    with pytest.raises(InputError, match="an image of 3 channels, and the model takes 1"):
        grey.prepare(image)


def test_a_recipe_is_read_as_it_was_written():
    assert Recipe.from_json(RECIPE.to_json(), "a") == RECIPE
    for text in ("", "[]", "{}", '{"image_format": "BGR"}'):
        with pytest.raises(InputError, match=r"a\.onnx: its metadata is not that of"):
            Recipe.from_json(text, "a.onnx")


@given(st.integers(0, 2**32 - 1), st.sampled_from([7, 14, 28, 112]))
@settings(max_examples=30, deadline=None)
def test_masks_are_pasted_as_by_detectron2(seed, side):
    rng = np.random.default_rng(seed)
    size = (int(rng.integers(1, 90)), int(rng.integers(1, 90)))
    corners = rng.uniform(0, 1, (6, 2, 2)) * [size[1], size[0]]
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).astype(np.float32)
    boxes[0] = np.round(boxes[0])
    boxes[1, 2:] = boxes[1, :2]
    masks = rng.random((6, side, side), dtype=np.float32)
    expected = paste_masks_in_image(torch.from_numpy(masks), torch.from_numpy(boxes), size).numpy()
    pasted = whole([paste(mask, box, size) for mask, box in zip(masks, boxes, strict=True)], size)
    # Where a probability is 0.5 to seven digits, the order of additions decides; a box without an extent is no box.
    assert np.delete(pasted != expected, 1, axis=0).sum() <= 1
    assert not pasted[1].any()


def test_a_box_outside_of_the_image_has_no_pixels():
    for box in ([-20, 5, -10, 9], [5, 70, 9, 80], [9, 9, 5, 5]):
        position, window = paste(np.ones((28, 28), np.float32), np.float32(box), (60, 50))
        assert not window.any()
        assert whole([(position, window)], (60, 50)).shape == (1, 60, 50)


def test_keypoints_are_detectron2s():
    generator = torch.Generator().manual_seed(0)
    heatmaps = torch.randn(4, 3, 56, 56, generator=generator)
    boxes = torch.tensor([[0.0, 0, 40, 60], [3.3, 4.4, 5.5, 99.9], [10, 10, 10.2, 10.4], [1, 2, 200, 150]])
    expected = heatmaps_to_keypoints(heatmaps, boxes)[:, :, [0, 1, 3]].numpy()
    found = keypoints(heatmaps.numpy(), boxes.numpy())
    assert np.abs(found - expected).max() < 1e-3
    assert keypoints(np.zeros((0, 3, 56, 56), np.float32), np.zeros((0, 4), np.float32)).shape == (0, 3, 3)


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


def test_what_is_no_model_is_one_line(tmp_path, exported):
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
    with pytest.raises(InputError, match=r"a\.json is not beside it"):
        open_model(script)
    (tmp_path / "a.json").write_text(RECIPE.to_json())
    with pytest.raises(InputError, match="PyTorch cannot read it"):
        open_model(script)


@pytest.mark.parametrize(
    ("target", "library", "extra"), [("onnx", "onnxruntime", "onnx"), ("openvino", "openvino", "openvino")]
)
def test_a_missing_library_is_named_with_its_extra(exported, monkeypatch, target, library, extra):
    pytest.importorskip(library)
    file = exported(target)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(InputError, match=rf'pip install "maskrcnn_ext\[{extra}\]"'):
        open_model(file)


def test_the_file_to_copy_needs_numpy_and_opencv_alone(run_python):
    import maskrcnn_ext.interop.export.standalone.paste as module

    code = (
        f"import runpy, sys; runpy.run_path({module.__file__!r}); "
        "print(sorted({'torch', 'detectron2', 'maskrcnn_ext'} & {name.split('.')[0] for name in sys.modules}))"
    )
    assert run_python("-I", "-c", code).stdout.strip() == "[]"


def test_runtimes_need_no_detectron2(run_python):
    code = "import sys, maskrcnn_ext.interop.export.runtimes; print(sorted({'torch', 'detectron2'} & set(sys.modules)))"
    assert run_python("-c", code).stdout.strip() == "[]"
