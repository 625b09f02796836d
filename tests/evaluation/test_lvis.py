"""LVIS's rules by hand: which images count for a class, and which detections are not wrong."""

import contextlib
import io
import json

import numpy as np
import pytest

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.evaluation.lvis import MAX_DETECTIONS, has_lvis_rules, lvis_metrics
from maskrcnn_ext.evaluation.results import load_results
from maskrcnn_ext.evaluation.stored_results import StoredResults
from maskrcnn_ext.evaluation.summary import evaluate
from maskrcnn_ext.evaluation.tables import overview
from maskrcnn_ext.evaluation.truth import load_truth
from tests.helpers.scenes import found, random_scene, truth_of

hotcoco = pytest.importorskip("hotcoco")


def scene(negative=(), not_exhaustive=()):
    """A frequent and a rare class; each has an object in image 2, and a detection with a higher score outside of it."""
    truth = truth_of([(1, 0, 10, 10, 20, 20), (2, 0, 10, 10, 20, 20), (2, 1, 50, 50, 20, 20)], images=2, classes=2)
    for category, frequency in zip(truth["categories"], "fr", strict=True):
        category["frequency"] = frequency
    truth["images"][0]["neg_category_ids"] = list(negative)
    truth["images"][1]["not_exhaustive_category_ids"] = list(not_exhaustive)
    results = [
        found(1, 0, 10, 10, 20, 20, 0.9),
        found(2, 0, 80, 10, 20, 20, 0.95),  # wrong unless image 2 is not exhaustive for class 0
        found(2, 0, 10, 10, 20, 20, 0.8),
        found(1, 1, 50, 50, 20, 20, 0.9),  # wrong if class 1 is verified to be absent in image 1
        found(2, 1, 50, 50, 20, 20, 0.8),
    ]
    return truth, results


def measured(truth, results, task):
    known = load_truth(truth)
    return lvis_metrics(known, load_results(results, known), task)


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_unverified_classes_and_incomplete_images_cost_nothing(task):
    metrics = measured(*scene(negative=[], not_exhaustive=[10]), task)
    assert (metrics["AP"], metrics["APf"], metrics["APr"]) == (
        pytest.approx(100),
        pytest.approx(100),
        pytest.approx(100),
    )
    assert metrics["APc"] is None


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_verified_ones_do(task):
    metrics = measured(*scene(negative=[20]), task)
    assert metrics["APr"] == pytest.approx(50), "one wrong before the right one"
    # Wrong, right, right: precision 2/3 at both recalls.
    assert metrics["APf"] == pytest.approx(100 * 2 / 3)
    assert metrics["AP"] == pytest.approx((metrics["APr"] + metrics["APf"]) / 2)


def test_the_summary_has_them_if_the_images_have_the_lists():
    truth, results = scene(negative=[20])
    assert has_lvis_rules(load_truth(truth))
    summary = evaluate(truth, results)
    assert summary["tasks"]["segm"]["lvis"] == measured(truth, results, "segm")
    assert "By the rules of LVIS" in overview(summary)
    assert summary["tasks"]["bbox"]["AP"] < summary["tasks"]["bbox"]["lvis"]["AP"] + 1e-6
    ordinary = evaluate(*random_scene(0))
    assert "lvis" not in ordinary["tasks"]["bbox"]
    assert "LVIS" not in overview(ordinary)


def lvis_scene(seed):
    """Random objects of five classes, with detections beyond LVIS's limit in the last image, and random lists."""
    truth, results = random_scene(seed, images=8, classes=5, objects=12)
    rng = np.random.default_rng(seed)
    ids = [category["id"] for category in truth["categories"]]
    results += [{**results[0], "image_id": 8, "score": float(score)} for score in rng.random(MAX_DETECTIONS)]
    for category, frequency in zip(truth["categories"], "rcffr", strict=True):
        category["frequency"] = frequency
    for image in truth["images"]:
        image["neg_category_ids"] = rng.choice(ids, 2, replace=False).tolist()
        image["not_exhaustive_category_ids"] = rng.choice(ids, 1).tolist()
    return truth, [results[index] for index in rng.permutation(len(results))]


@pytest.mark.parametrize("task", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(3))
def test_images_one_at_a_time_have_the_numbers_of_all_at_once(seed, task):
    truth, results = lvis_scene(seed)
    known = load_truth(truth)
    own = [{key: value for key, value in one.items() if task == "bbox" or key != "bbox"} for one in results]
    content = hotcoco.COCO({"images": known.images, "categories": known.categories, "annotations": known.annotations})
    evaluator = hotcoco.LVISEval(content, hotcoco.LVISResults(content, own, max_dets=MAX_DETECTIONS), task)
    evaluator.evaluate()
    evaluator.accumulate()
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator.summarize()
    expected = evaluator.get_results()
    metrics = measured(truth, results, task)
    assert metrics == {name: None if expected[name] < 0 else 100 * expected[name] for name in metrics}
    assert 0 < metrics["AP"] < 100


@pytest.mark.parametrize("task", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(3))
def test_the_numbers_of_the_authors_package(seed, task, tmp_path, monkeypatch):
    """LVIS has no crowds; of equal scores, either may count first."""
    lvis = pytest.importorskip("lvis")
    monkeypatch.setattr(np, "float", float, raising=False)  # a name that NumPy 1.24 has removed
    truth, results = lvis_scene(seed)
    for annotation in truth["annotations"]:
        annotation["iscrowd"] = 0
    for result, place in zip(results, np.random.default_rng(seed).permutation(len(results)), strict=True):
        result["score"] = (int(place) + 1) / (len(results) + 1)
    known, file = load_truth(truth), tmp_path / "truth.json"
    content = {"images": known.images, "categories": known.categories, "annotations": known.annotations}
    file.write_text(json.dumps(content))
    own = [{key: value for key, value in one.items() if task == "bbox" or key != "bbox"} for one in results]
    theirs = lvis.LVIS(str(file))
    evaluator = lvis.LVISEval(theirs, lvis.LVISResults(theirs, own, max_dets=MAX_DETECTIONS), task)
    evaluator.run()
    expected = {name: None if value < 0 else 100 * value for name, value in evaluator.get_results().items()}
    metrics = measured(truth, results, task)
    assert metrics == pytest.approx({name: expected[name] for name in metrics}, abs=1e-9)
    assert 0 < metrics["AP"] < 100


def test_results_stay_in_their_file(tmp_path):
    """Each image's best detections are read once, those beyond the limit never."""
    truth, results = lvis_scene(0)
    known, file = load_truth(truth), tmp_path / "results.json"
    file.write_text(json.dumps(results))
    stored = load_results(file, known, in_memory=0)
    read = []

    class Counted(StoredResults):
        def __init__(self):
            self.columns = stored.columns

        def __getitem__(self, index):
            read.append(int(index))
            return stored[index]

    assert lvis_metrics(known, Counted(), "segm") == measured(truth, results, "segm")
    in_last = sum(one["image_id"] == 8 for one in results)
    assert in_last > MAX_DETECTIONS
    assert len(set(read)) == len(read) == len(results) - in_last + MAX_DETECTIONS
    of_image = [results[index]["image_id"] for index in read]
    assert of_image == sorted(of_image)


def test_ids_may_be_texts():
    truth, results = scene(negative=[20], not_exhaustive=[10])
    expected = measured(truth, results, "segm")
    names = {10: "cat", 20: "dog"}
    for image in truth["images"]:
        image["id"] = f"{image['id']}.jpg"
        for key in ("neg_category_ids", "not_exhaustive_category_ids"):
            image[key] = [names[own] for own in image.get(key, [])]
    for one in (*truth["annotations"], *results):
        one.update(image_id=f"{one['image_id']}.jpg", category_id=names[one["category_id"]])
    for category in truth["categories"]:
        category["id"] = names[category["id"]]
    assert measured(truth, results, "segm") == expected


@pytest.mark.parametrize("listed", [7, None, [[10]], {"10": 1}])
def test_broken_lists_are_one_line(listed):
    truth, results = scene()
    truth["images"][0]["neg_category_ids"] = listed
    with pytest.raises(InputError, match=r"image 1: `neg_category_ids` is .* expected a list of ids of categories"):
        measured(truth, results, "bbox")
