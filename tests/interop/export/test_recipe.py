"""Recipes: preparing images, scaling boxes, JSON, and which mappers can be described."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn_ext.data.mapping.augmentation.resizing import Letterbox, PlainResize
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.interop.export.recipe import Recipe, build_recipe, scale_boxes
from maskrcnn_ext.modeling.matterport.rcnn import Frame
from tests.helpers.calibration import images
from tests.helpers.exported_models import detector  # noqa: F401 (fixtures)
from tests.helpers.exporting import CLASSES, RECIPE
from tests.helpers.imported_models import from_matterport


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
    with pytest.raises(InputError, match="the image has 3 channels, and the model takes 1"):
        grey.prepare(image)


def test_a_recipe_is_read_as_it_was_written():
    assert Recipe.from_json(RECIPE.to_json(), "a") == RECIPE
    for text in ("", "[]", "{}", '{"image_format": "BGR"}'):
        with pytest.raises(InputError, match=r"a\.onnx: its metadata was not written by"):
            Recipe.from_json(text, "a.onnx")


def replaced(**changes):
    return Recipe(**{**{name: getattr(RECIPE, name) for name in Recipe.__dataclass_fields__}, **changes})


@pytest.fixture(scope="module")
def matterport(tmp_path_factory):
    return from_matterport(images()[0], tmp_path_factory.mktemp("matterport"))


@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.sampled_from([0, 50, 200]),
    st.sampled_from([0, 128, 256]),
    st.sampled_from([0, 2]),
)
@settings(max_examples=60, deadline=None)
def test_images_are_resized_as_by_matterport(height, width, least, most, scale):
    image = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    expected = Letterbox(least, most, scale).get_transform(image).apply_image(image)
    recipe = replaced(resize="matterport", short_edge=least, long_edge=most, least_scale=scale)
    assert np.array_equal(recipe.prepare(image), expected.transpose(2, 0, 1))


@pytest.mark.parametrize("rule", ["matterport", "matterport, whole pixels"])
def test_boxes_are_scaled_as_by_matterport(rule):
    inner, outer = (96, 128), (301, 77)
    boxes = np.random.default_rng(0).uniform(0, 90, (20, 4)).astype(np.float32)
    boxes[:, 2:] = np.maximum(boxes[:, :2] + 1, boxes[:, 2:])
    frame = Frame((0, 0, 128, 96), outer, rule != "matterport")
    expected = frame.outward(torch.from_numpy(boxes)).numpy() * np.float32([77 / 128, 301 / 96] * 2)
    found = scale_boxes(replaced(boxes=rule), boxes, inner, outer)
    assert np.abs(found - expected.clip(0, [77, 301] * 2)).max() < 1e-3


def test_unknown_rules_are_refused():
    with pytest.raises(
        InputError, match=r"a\.onnx: its metadata contain masks='keras': expected detectron2, torchvision"
    ):
        Recipe.from_json(replaced(masks="keras").to_json(), "a.onnx")


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
                build_recipe(model, mapper, CLASSES)
    finally:
        mapper.augmentations.augs = augmentations


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"short_edge": 10**9}, "short_edge=1000000000: expected int"),
        ({"long_edge": -1}, "long_edge=-1"),
        ({"short_edge": "800"}, "short_edge='800'"),
        ({"least_scale": 1e9}, "least_scale=1000000000.0"),
        ({"size_divisibility": 2**40}, "size_divisibility"),
        ({"pixel_mean": [float("nan")] * 3}, "pixel_mean"),
        ({"pixel_std": [0.0, 1.0, 1.0]}, "pixel_std that is 0"),
        ({"pixel_std": [1.0]}, "pixel_std that is 0 or does not fit pixel_mean"),
        ({"class_names": "abc"}, "class_names='abc'"),
        ({"class_names": [1]}, "class_names"),
        ({"batched": 1}, "batched=1"),
        ({"max_detections": 1e300}, "max_detections"),
    ],
)
def test_absurd_values_are_refused(changes, message):
    content = {**dataclasses.asdict(RECIPE), **changes}
    with pytest.raises(InputError, match=f"a.json: its metadata contain .*{message}") as caught:
        Recipe.from_json(json.dumps(content), "a.json")
    assert "\n" not in str(caught.value)


def test_deep_json_is_refused():
    with pytest.raises(InputError, match="was not written by"):
        Recipe.from_json("[" * 100_000, "a.json")
