"""Several images in one call of an exported model: each image's detections are those of a call with it alone."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from maskrcnn_ext.cli import main
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.interop.export import export
from maskrcnn_ext.interop.export.graph import Exportable
from maskrcnn_ext.interop.export.recipe import build_recipe
from maskrcnn_ext.interop.export.runtimes import open_model
from tests.helpers.calibration import images
from tests.helpers.exported_models import detector, exported, weights  # noqa: F401 (fixtures)
from tests.helpers.exporting import CLASSES, SETTINGS, build

FILES = {"onnx": "a.onnx", "openvino": "a.xml", "torchscript": "a.ts", "torch-export": "a.pt2"}
LIBRARIES = {"onnx": "onnxruntime", "openvino": "openvino", "torchscript": "torchvision", "torch-export": "torchvision"}
SLOW = [pytest.param(target, marks=pytest.mark.slow) for target in ("openvino", "torchscript", "torch-export")]


def group():
    """Three images of one size, of which the last is almost of a single colour."""
    image = images()[0]
    grey = np.full_like(image, 127)
    grey[:5, :7] = 90
    return [image, np.ascontiguousarray(image[::-1, ::-1]), grey]


def assert_same(found, expected):
    assert len(found["boxes"]) == len(expected["boxes"])
    assert np.array_equal(found["classes"], expected["classes"])
    assert np.abs(found["boxes"] - expected["boxes"]).max(initial=0) < 1e-2
    assert np.abs(found["scores"] - expected["scores"]).max(initial=0) < 1e-4
    for (place, window), (other_place, other) in zip(found["masks"], expected["masks"], strict=True):
        assert place == other_place
        assert window.shape == other.shape
        assert (window != other).sum() <= 2


def strict_model():
    """The detector with a threshold that the third image's detections are below."""
    model, mapper = build()
    *_, grey = group()
    pixels = build_recipe(model, mapper, CLASSES).prepare(grey)
    with torch.no_grad():
        _, scores, *_ = Exportable(model)(torch.from_numpy(pixels))
    model.roi_heads.box_predictor.test_score_thresh = float(scores.max()) + 1e-3
    return model, mapper


@pytest.fixture(scope="module")
def batched(detector, tmp_path_factory):
    """From a target to what `export` has written of the detector for batches."""
    model, mapper = detector
    folder = tmp_path_factory.mktemp("batched")

    def write(target):
        file = folder / FILES[target]
        return (
            file if file.exists() else export(model, build_recipe(model, mapper, CLASSES, batched=True), target, file)
        )

    return write


@pytest.mark.parametrize("target", ["onnx", *SLOW])
def test_a_batch_equals_its_single_images(exported, batched, target):
    pytest.importorskip(LIBRARIES[target])
    alone, together = open_model(exported(target)), open_model(batched(target))
    assert together.recipe.batched
    assert together.recipe.output_names[-1] == "image"
    for count in (3, 2, 1):
        found = together(group()[:count])
        assert len(found) == count
        for one, image in zip(found, group(), strict=False):
            # Of the almost grey image, many scores are equal: their order is arbitrary.
            if image[0, 0, 0] != 90:
                assert len(one["boxes"]) == 100
                assert_same(one, alone(image))
    small = images()[1] if target != "torch-export" else np.ascontiguousarray(images()[0][:, :100])
    assert_same(together(small), alone(small))


@pytest.mark.parametrize("target", ["onnx", *SLOW])
def test_images_without_detections_are_safe_wherever_they_are(tmp_path, target):
    pytest.importorskip(LIBRARIES[target])
    model, mapper = strict_model()
    image, turned, grey = group()
    runtime = open_model(
        export(model, build_recipe(model, mapper, CLASSES, batched=True), target, tmp_path / FILES[target])
    )
    expected = [len(one["boxes"]) for one in runtime([image, turned])]
    assert min(expected) > 0
    for order in ([grey, image, grey, turned], [grey, grey], [grey]):
        found = runtime(order)
        counts = [0 if given is grey else expected[given is turned] for given in order]
        assert [len(one["boxes"]) for one in found] == [len(one["masks"]) for one in found] == counts
    assert runtime([]) == []


def test_images_of_several_sizes_are_no_batch(batched, exported):
    pytest.importorskip("onnxruntime")
    with pytest.raises(InputError, match=r"a\.onnx: images of 256 x 102, 160 x 175 after resizing|images of 160 x 175"):
        open_model(batched("onnx"))(images())
    # One by one they pass.
    assert len(open_model(exported("onnx"))(images())) == 2


def test_the_commands_take_batches(weights, tmp_path, exported, capsys):
    pytest.importorskip("onnxruntime")
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, image in enumerate([*group()[:2], images()[1]]):
        cv2.imwrite(str(folder / f"{number}.png"), image)
    given = ["mask_rcnn_r18_fpn_scratch", str(weights)]
    file = tmp_path / "model.onnx"
    assert main(["export", *given, "--to", "onnx", "--batch", "-o", str(file), "--set", *SETTINGS]) == 0
    arguments = ["--against", *given, "--images", str(folder), "--set", *SETTINGS]
    assert main(["verify", str(file), *arguments, "--batch", "2"]) == 0
    assert "3 images, 300 objects: all within the limits" in capsys.readouterr().out
    assert main(["verify", str(exported("onnx")), *arguments, "--batch", "2"]) == 2
    assert "takes one image per call: export it with --batch" in capsys.readouterr().err
    assert main(["export", *given, "--to", "opencv", "--batch", "-o", str(tmp_path / "b"), "--set", *SETTINGS]) == 2
    assert "opencv takes one image a call" in capsys.readouterr().err
