"""Models that `import-weights` writes are exported as any other, with the arithmetic that they came with."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection.roi_heads import paste_masks_in_image

from maskrcnn_ext.data.mapping.augmentation.resizing import Letterbox
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.interop.export import export
from maskrcnn_ext.interop.export.build_recipe import recipe_of
from maskrcnn_ext.interop.export.pooling import pool
from maskrcnn_ext.interop.export.recipe import Recipe, scale_boxes
from maskrcnn_ext.interop.export.runtimes import open_model
from maskrcnn_ext.interop.export.standalone.paste import paste_whole_pixels, whole
from maskrcnn_ext.interop.export.verify import Limits, Reference, verify
from maskrcnn_ext.modeling.matterport.frame import Frame
from maskrcnn_ext.modeling.poolers.crop_resize import CropResizePooler
from tests.helpers.calibration import images
from tests.helpers.exporting import CLASSES, RECIPE
from tests.helpers.imported_models import from_matterport, from_torchvision

BLANK = np.full((96, 128, 3), 127, np.uint8)


def replaced(**changes):
    return Recipe(**{**{name: getattr(RECIPE, name) for name in Recipe.__dataclass_fields__}, **changes})


def assert_passes(model, mapper, target, file, limits=None, batched=False):
    recipe = recipe_of(model, mapper, CLASSES, batched)
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


@pytest.mark.slow
def test_torchvision_models_pass(tmp_path):
    pytest.importorskip("onnxruntime")
    model, mapper = from_torchvision("maskrcnn_resnet50_fpn", tmp_path)
    runtime = assert_passes(model, mapper, "onnx", tmp_path / "a.onnx", batched=True)
    assert (runtime.recipe.resize, runtime.recipe.masks) == ("torchvision", "torchvision")


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 14, 28]))
@settings(max_examples=30, deadline=None)
def test_masks_are_pasted_as_by_torchvision(seed, side):
    rng = np.random.default_rng(seed)
    size = (int(rng.integers(1, 90)), int(rng.integers(1, 90)))
    corners = rng.uniform(-0.1, 1.1, (6, 2, 2)) * [size[1], size[0]]
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).clip(0, [*size[::-1]] * 2)
    boxes = boxes.astype(np.float32)
    masks = rng.random((6, side, side), dtype=np.float32)
    expected = paste_masks_in_image(torch.from_numpy(masks)[:, None], torch.from_numpy(boxes), size)[:, 0].numpy()
    pasted = whole([paste_whole_pixels(mask, box, size) for mask, box in zip(masks, boxes, strict=True)], size)
    clear = np.abs(expected - 0.5) > 1e-4
    assert np.array_equal(pasted[clear], expected[clear] >= 0.5)


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
    with pytest.raises(InputError, match=r"a\.onnx: its metadata have masks='keras': expected detectron2, torchvision"):
        Recipe.from_json(replaced(masks="keras").to_json(), "a.onnx")


@pytest.mark.parametrize("output_size", [1, 7])
def test_crops_are_roi_aligns(output_size):
    from detectron2.structures import Boxes

    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 5, 64 >> level, 96 >> level, generator=generator) for level in range(3)]
    corners = torch.rand(40, 2, 2, generator=generator).sort(dim=1).values * torch.tensor([384.0, 256])
    boxes = corners.flatten(1)
    boxes[0] = torch.tensor([0.0, 0, 384, 256])  # both ends are the map's
    boxes[1, 2:] = boxes[1, :2] + 0.3  # upside down
    boxes[2] = torch.tensor([383.7, 255.9, 384, 256])  # beyond the last pixel's centre
    pooler = CropResizePooler(output_size, [1 / 4, 1 / 8, 1 / 16], 0, "ROIAlignV2", canonical_box_size=60)
    expected = pooler(maps, [Boxes(boxes[:25]), Boxes(boxes[25:])])
    images_of = (torch.arange(40) >= 25).float()[:, None]
    torch.testing.assert_close(pool(pooler, maps, torch.cat([images_of, boxes], dim=1)), expected, rtol=0, atol=1e-3)
