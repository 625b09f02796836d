"""hotcoco and faster-coco-eval return all of pycocotools' numbers; another program is used if one is missing or cannot be used."""

import json

import numpy as np
import pytest
from pycocotools import mask as mask_util

from maskrcnn_ext.evaluation import backend
from maskrcnn_ext.evaluation.backend import backend_name, run_coco_eval
from maskrcnn_ext.evaluation.results import by_image
from maskrcnn_ext.evaluation.truth import load_truth
from tests.helpers.scenes import add_keypoints, found, random_scene, truth_of


@pytest.fixture(params=["hotcoco", "faster-coco-eval"], autouse=True)
def program(request, monkeypatch):
    """The only fast program that is installed."""
    package = backend._PACKAGES[request.param]
    pytest.importorskip(package)
    monkeypatch.setattr(backend, "_PACKAGES", {request.param: package})
    return request.param


def measured(truth, results, task, **options):
    """Returns all precisions, recalls and averages."""
    evaluator = run_coco_eval(load_truth(truth).as_coco(), by_image(results), task, **options)
    num = 10 if task == "keypoints" else 12  # faster-coco-eval has more
    return [
        np.asarray(values) for values in (evaluator.eval["precision"], evaluator.eval["recall"], evaluator.stats[:num])
    ]


def assert_same(truth, results, task, **options):
    assert backend_name(fast=True) in backend._PACKAGES
    before = json.dumps([truth, results])
    for fast, slow in zip(
        measured(truth, results, task, **options), measured(truth, results, task, fast=False, **options), strict=True
    ):
        np.testing.assert_allclose(fast, slow, atol=1e-6)
    assert json.dumps([truth, results]) == before


@pytest.mark.parametrize("task", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(4))
def test_boxes_and_masks(seed, task):
    truth, results = random_scene(seed, images=8, objects=8)
    assert_same(truth, results, task)
    assert_same(truth, results, task, img_ids=[2, 3, 5])


@pytest.mark.parametrize("limit", [11, 150])
def test_any_limit_of_detections(limit):
    truth, results = random_scene(0, classes=1, objects=12)
    many = [{**result, "score": result["score"] * rank} for rank in (1, 0.5, 0.2, 0.1) for result in results]
    assert_same(truth, many, "bbox", max_detections=limit)
    few, all_of_them = (measured(truth, many, "bbox", max_detections=of)[2][0] for of in (11, 150))
    assert few < all_of_them


def test_keypoints():
    for seed in range(3):
        truth, results = random_scene(seed, classes=2)
        add_keypoints(truth, results, 17, np.random.default_rng(seed))
        assert_same(truth, results, "keypoints")
        add_keypoints(truth, results, 3, np.random.default_rng(seed))
        assert_same(truth, results, "keypoints", sigmas=[0.05, 0.1, 0.2])


def test_a_crowd_and_scores_that_are_equal():
    """A group takes any number of detections, and equal scores are ranked in the order of the file."""
    truth = truth_of([(1, 0, 10, 10, 60, 60, 1), (1, 0, 90, 10, 20, 20), (2, 0, 10, 10, 20, 20)], images=2)
    results = [found(1, 0, x, 12, 15, 15, 0.5) for x in (12, 30, 50)]
    results += [found(1, 0, 91, 10, 20, 20, 0.5), found(2, 0, 60, 60, 20, 20, 0.5), found(2, 0, 10, 11, 20, 20, 0.5)]
    for task in ("bbox", "segm"):
        assert_same(truth, results, task)


def test_masks_of_large_images():
    """An RLE of 5,000 x 6,000 pixels."""
    pixels = np.zeros((6000, 5000), np.uint8)
    pixels[100:5900, 40:4900] = 1
    rle = mask_util.encode(np.asfortranarray(pixels))
    segmentation = {**rle, "counts": rle["counts"].decode()}
    truth = truth_of([(1, 0, 40, 100, 4860, 5800)])
    truth["images"][0].update(height=6000, width=5000)
    truth["annotations"][0].update(segmentation=segmentation, area=int(pixels.sum()))
    assert_same(truth, [{**found(1, 0, 40, 100, 4860, 5800), "segmentation": segmentation}], "segm")


def test_nothing_found_and_nothing_to_find():
    truth, results = random_scene(1)
    assert measured(truth, [], "bbox")[2][0] == 0
    assert measured({**truth, "annotations": []}, results, "bbox")[2][0] == -1


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_ids_that_are_text(task):
    """As data sets have that name an image by its file. Text sorts "image 10" before "image 2", which decides between equal scores."""
    truth, results = random_scene(1, images=12)
    results = [{**result, "score": round(result["score"], 1)} for result in results]
    truth["images"] = [{**image, "id": f"image {image['id']}"} for image in truth["images"]]
    truth["categories"] = [{**category, "id": f"class {category['id']}"} for category in truth["categories"]]
    truth["annotations"], results = (
        [
            {**found, "image_id": f"image {found['image_id']}", "category_id": f"class {found['category_id']}"}
            for found in records
        ]
        for records in (truth["annotations"], results)
    )
    assert_same(truth, results, task)
    assert_same(truth, results, task, img_ids=["image 10", "image 2"])
    unknown = {**by_image(results), "image 99": []}  # without detections, and not of the data set
    run_coco_eval(load_truth(truth).as_coco(), unknown, task)


def test_another_program_is_used_if_not_allowed_or_missing(monkeypatch):
    truth, results = random_scene(1)
    expected = measured(truth, results, "bbox", fast=False)[2]
    assert backend_name(fast=False) == "pycocotools"
    monkeypatch.setattr(backend, "find_spec", lambda _: None)
    assert backend_name(fast=True) == "Detectron2"
    np.testing.assert_allclose(measured(truth, results, "bbox")[2], expected)
