"""`maskrcnn-ext export` and `verify`: equal models pass, others fail."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from maskrcnn_ext.interop.export import onnx
from maskrcnn_ext.interop.export.recipe import build_recipe
from maskrcnn_ext.interop.export.runtimes import open_model
from maskrcnn_ext.interop.export.verify import (
    QUANTIZED_LIMITS,
    Limits,
    Reference,
    agreement,
    compare,
    time_ratio,
    verify,
)
from tests.helpers.calibration import images
from tests.helpers.exported_models import detector, exported, pictures, weights  # noqa: F401 (fixtures)
from tests.helpers.exporting import CLASSES, RECIPE

OBJECT = {
    "boxes": np.float32([[10, 10, 30, 40], [50, 50, 90, 80]]),
    "scores": np.float32([0.9, 0.6]),
    "classes": np.int64([0, 3]),
    "masks": [((10, 10), np.ones((30, 20), bool)), ((50, 50), np.ones((30, 40), bool))],
}
SIZE = (100, 100)


def changed(**fields):
    return {**{key: value.copy() for key, value in OBJECT.items()}, **fields}


def test_boxes_without_width_match_by_their_corners():
    thin = np.float32([[45.5140, 0, 45.5142, 70], [50, 50, 90, 80]])
    moved = thin + np.float32([[-6e-4, 0, -6e-4, 0], [0, 0, 0, 0]])
    result = compare("a", SIZE, changed(boxes=moved), changed(boxes=thin), RECIPE, Limits())
    assert (result.faults, result.missing) == ([], 0)
    assert result.box == pytest.approx(6e-4, rel=0.1)
    moved[0, [0, 2]] -= 0.06
    faults = compare("a", SIZE, changed(boxes=moved), changed(boxes=thin), RECIPE, Limits()).faults
    assert faults == ["2 detected by one model only"]


@pytest.mark.parametrize("target", ["onnx", pytest.param("openvino", marks=pytest.mark.slow), "torchscript", "opencv"])
def test_exports_pass(detector, exported, target):
    pytest.importorskip({"onnx": "onnxruntime", "openvino": "openvino"}.get(target, "cv2"))
    model, mapper = detector
    named = [(str(number), image) for number, image in enumerate(images())]
    comparisons = list(
        verify(open_model(exported(target)), Reference(model, mapper), build_recipe(model, mapper, CLASSES), named)
    )
    assert [one.faults for one in comparisons] == [[]] * len(named)
    assert all(one.expected > 50 for one in comparisons)
    assert all(one.seconds > 0 and one.reference_seconds > 0 for one in comparisons)
    assert time_ratio(comparisons) > 0


def test_an_export_of_opset_11_fails(detector, tmp_path):
    pytest.importorskip("onnxruntime")
    model, mapper = detector
    file = tmp_path / "old.onnx"
    onnx.trace(model, file, 11)
    onnx.write_metadata(file, build_recipe(model, mapper, CLASSES))
    (comparison,) = verify(
        open_model(file), Reference(model, mapper), build_recipe(model, mapper, CLASSES), [("0", images()[0])]
    )
    assert comparison.faults
    assert "BEYOND THE LIMITS" in comparison.line()


def test_equal_results_have_no_fault():
    result = compare("a", SIZE, OBJECT, OBJECT, RECIPE, Limits())
    assert (result.faults, result.missing, result.borderline, result.mask_iou) == ([], 0, 0, 1.0)


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"boxes": OBJECT["boxes"] + np.float32([[0, 0, 0, 0], [0, 0.1, 0, 0]])}, "boxes by 0.1 px"),
        ({"scores": np.float32([0.9, 0.61])}, "scores by 0.01"),
        ({"classes": np.int64([1, 3])}, "2 detected by one model only"),
        ({"boxes": OBJECT["boxes"] * np.float32(np.nan)}, "4 detected by one model only"),
        ({"masks": [OBJECT["masks"][0], ((50, 50), np.ones((29, 40), bool))]}, "1 masks, IoU down to 0.967"),
    ],
)
def test_every_difference_is_a_fault(fields, fault):
    assert fault in compare("a", SIZE, changed(**fields), OBJECT, RECIPE, Limits()).faults


def test_a_missing_object_is_a_fault_on_either_side():
    fewer = {
        "boxes": OBJECT["boxes"][1:],
        "scores": OBJECT["scores"][1:],
        "classes": OBJECT["classes"][1:],
        "masks": OBJECT["masks"][1:],
    }
    nothing = {key: value[:0] for key, value in OBJECT.items()}
    assert compare("a", SIZE, fewer, OBJECT, RECIPE, Limits()).faults == ["1 detected by one model only"]
    assert compare("a", SIZE, OBJECT, fewer, RECIPE, Limits()).faults == ["1 detected by one model only"]
    assert compare("a", SIZE, nothing, nothing, RECIPE, Limits()).faults == []
    assert compare("a", SIZE, nothing, OBJECT, RECIPE, Limits()).faults == ["2 detected by one model only"]


def test_single_pixels_of_small_masks_and_objects_at_the_threshold_are_no_faults():
    window = np.ones((30, 20), bool)
    window[0, :2] = False
    small = Limits(mask_iou=0.9999)
    assert (
        compare("a", SIZE, changed(masks=[((10, 10), window), OBJECT["masks"][1]]), OBJECT, RECIPE, small).faults == []
    )
    window[0, 2] = False
    assert compare("a", SIZE, changed(masks=[((10, 10), window), OBJECT["masks"][1]]), OBJECT, RECIPE, small).faults
    at_threshold = {
        "boxes": np.concatenate([OBJECT["boxes"], np.float32([[0, 0, 5, 5]])]),
        "scores": np.float32([0.9, 0.6, 0.0505]),
        "classes": np.int64([0, 3, 0]),
        "masks": [*OBJECT["masks"], ((0, 0), np.ones((5, 5), bool))],
    }
    result = compare("a", SIZE, at_threshold, OBJECT, RECIPE, Limits())
    assert (result.faults, result.borderline) == ([], 1)
    one_more = {**at_threshold, "scores": np.float32([0.9, 0.6, 0.5995])}
    assert compare("a", SIZE, one_more, OBJECT, RECIPE, Limits()).faults == ["1 detected by one model only"]
    # Where the other may find no more than two, it may as well have been the third.
    assert compare("a", SIZE, one_more, OBJECT, dataclasses.replace(RECIPE, max_detections=2), Limits()).faults == []


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, 1.0),
        ({"scores": np.float32([0.7, 0.8])}, 2 * (0.7 + 0.6) / (1.5 + 1.5)),
        ({"classes": np.int64([0, 1])}, 0.9 / 1.5),
        ({"boxes": OBJECT["boxes"] + np.float32([[0, 0, 2, 3], [0, 0, 60, 60]])}, 0.9 / 1.5),
        ({"masks": [OBJECT["masks"][0], ((50, 50), np.ones((14, 40), bool))]}, 0.9 / 1.5),
        ({key: value[:0] for key, value in OBJECT.items()}, 0.0),
    ],
)
def test_models_in_8_bits_are_judged_by_the_share_of_common_detections(fields, expected):
    result = compare("a", SIZE, changed(**fields), OBJECT, RECIPE, QUANTIZED_LIMITS)
    assert result.faults == []
    assert agreement([result]) == pytest.approx(expected)
    same = compare("b", SIZE, OBJECT, OBJECT, RECIPE, QUANTIZED_LIMITS)
    assert agreement([result, same]) == pytest.approx((result.shared_score + 3.0) / (result.total_score + 3.0))


def test_nothing_found_by_either_model_is_agreement():
    nothing = {key: value[:0] for key, value in OBJECT.items()}
    assert agreement([compare("a", SIZE, nothing, nothing, RECIPE, QUANTIZED_LIMITS)]) == 1.0


def test_keypoints_and_mask_scores_are_compared():
    points = np.zeros((2, 3, 3), np.float32)
    expected = changed(keypoints=points, mask_scores=np.float32([0.5, 0.5]))
    moved = points.copy()
    moved[1, 2, 0] = 5
    result = compare(
        "a", SIZE, changed(keypoints=moved, mask_scores=np.float32([0.5, 0.4])), expected, RECIPE, Limits()
    )
    assert result.faults == ["scores by 0.1", "keypoints by 5 px"]


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.parametrize("target", ["onnx", "openvino", "opencv"])
def test_real_images_of_three_sizes_and_a_blank_one(detector, exported, real_data, target):
    """Eight photographs, of which two are shrunk and two cut, and one image of a single colour."""
    files = sorted((real_data / "balloon").rglob("*.jpg"))[:8]
    assert len(files) == 8
    photographs = [cv2.imread(str(file)) for file in files]
    sizes = {1: (300, 400), 2: (501, 333)}
    named = [
        (str(number), cv2.resize(image, sizes[number % 3][::-1]) if number % 3 in sizes else image)
        for number, image in enumerate(photographs)
    ]
    assert len({image.shape for _, image in named}) >= 3
    named.append(("blank", np.full((240, 320, 3), 200, np.uint8)))
    model, mapper = detector
    comparisons = list(
        verify(open_model(exported(target)), Reference(model, mapper), build_recipe(model, mapper, CLASSES), named)
    )
    assert [one.faults for one in comparisons] == [[]] * 9, [one.line() for one in comparisons]
    assert sum(one.expected for one in comparisons) > 100
