"""The paired bootstrap: no difference between a model and itself, an interval without 0 for a better model."""

import numpy as np
import pytest

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.evaluation.average_precision import ALL_AREAS, average_precisions
from maskrcnn_ext.evaluation.bootstrap import ap_interval, compare, compare_seeds, resample_ap
from tests.helpers.scenes import found, match_scene, perfect, random_scene, truth_of


@pytest.fixture(scope="module")
def scene():
    return random_scene(5, images=30)


def test_a_model_does_not_differ_from_itself(scene):
    truth, results = scene
    comparison = compare(truth, results, results, task="segm", resamples=50)
    assert (comparison["images"], comparison["resamples"]) == (30, 50)
    assert [metric["name"] for metric in comparison["metrics"]] == ["AP", "AP50", "AP75", "AP-c0", "AP-c1", "AP-c2"]
    for metric in comparison["metrics"]:
        assert (metric["difference"], metric["low"], metric["high"], metric["real"]) == (0, 0, 0, False)


def test_noise_is_not_real_and_a_better_model_is(scene):
    truth, results = scene
    rng = np.random.default_rng(0)
    shuffled = [{**result, "score": result["score"] + float(rng.normal(0, 0.02))} for result in results]
    noise = compare(truth, results, shuffled, task="bbox", resamples=200)["metrics"][0]
    assert noise["low"] < 0 < noise["high"]
    assert not noise["real"]
    better = compare(truth, results, results + perfect(truth, 0.99), task="bbox", resamples=200)["metrics"][0]
    assert 0 < better["low"] < better["difference"] < better["high"]
    assert better["real"]
    worse = compare(truth, results + perfect(truth, 0.99), results, task="bbox", resamples=200)["metrics"][0]
    assert (worse["low"], worse["high"]) == pytest.approx((-better["high"], -better["low"]))


def test_the_interval_of_one_result(scene):
    truth, results = scene
    ap, low, high = ap_interval(truth, results, task="segm", resamples=100)
    assert ap == pytest.approx(compare(truth, results, results, task="segm", resamples=1)["metrics"][0]["a"])
    assert low < ap < high
    assert ap_interval(truth, results, task="segm", resamples=100) == (ap, low, high)
    assert ap_interval(truth, perfect(truth, 0.9), task="bbox", resamples=20) == pytest.approx((100, 100, 100))
    # All of these draws of three images have a higher AP than the images themselves.
    ap, low, high = ap_interval(*random_scene(5, images=3), task="bbox", resamples=3)
    assert ap == low < high
    assert np.isnan(ap_interval({**truth, "annotations": []}, [], task="bbox", resamples=5)).all()


@pytest.mark.parametrize("seed", range(3))
def test_a_draw_is_the_ap_of_the_images_drawn(seed):
    truth, results = random_scene(seed, images=5)
    rng = np.random.default_rng(seed)
    # Of equal scores, the order of copies of an image would decide.
    results = [{**result, "score": float(rng.random())} for result in results]
    draws = rng.multinomial(5, np.full(5, 0.2), 4).astype(np.int32)
    ap = resample_ap(match_scene(truth, results, areas=[ALL_AREAS]), draws)
    for draw, own in zip(draws, ap, strict=True):
        # Repeat each image as often as it was drawn, under new ids.
        drawn = {**truth, "images": [], "annotations": []}
        of_drawn = []
        for index, times in enumerate(draw):
            for _ in range(times):
                new = len(drawn["images"]) + 1
                drawn["images"].append({**truth["images"][index], "id": new})
                for into, source in ((drawn["annotations"], truth["annotations"]), (of_drawn, results)):
                    into += [{**one, "image_id": new} for one in source if one["image_id"] == index + 1]
        expected, _, curves = average_precisions(match_scene(drawn, of_drawn, areas=[ALL_AREAS]))
        np.testing.assert_array_equal(np.isnan(own), np.isnan(expected))
        # pycocotools' recalls are rounded, so that a step may be read a hundredth later.
        slack = np.nan_to_num(np.abs(np.diff(curves, axis=2)).sum(axis=2)) / 101 + 1e-9
        assert (np.nan_to_num(np.abs(own - expected)) <= slack).all()


def test_no_resample_is_the_ap_itself(scene):
    matching = match_scene(*scene, areas=[ALL_AREAS])
    ap = resample_ap(matching, np.ones((1, 30), np.int32))[0]
    assert np.nanmax(np.abs(ap - average_precisions(matching)[0])) < 0.01
    doubled = resample_ap(matching, np.full((1, 30), 2, np.int32))[0]
    np.testing.assert_allclose(doubled, ap, atol=0.02)


def test_few_or_no_images_show_no_real_difference():
    truth = truth_of([(i, 0, 10, 10, 20, 20) for i in range(1, 5)], images=4)
    better = compare(truth, [], perfect(truth), task="bbox", resamples=20)["metrics"][0]
    assert (better["a"], better["b"], better["real"]) == (0, pytest.approx(100), False)
    nothing = compare(truth_of([], images=0), [], [], task="bbox", resamples=3)["metrics"]
    assert nothing[0]["a"] is nothing[0]["low"] is None
    no_objects = compare(truth_of([], images=12), [found(1, 0, 1, 1, 5, 5)], [], task="bbox", resamples=3)["metrics"]
    assert [metric["name"] for metric in no_objects] == ["AP", "AP50", "AP75"]
    with pytest.raises(InputError, match="resamples is 0"):
        compare(truth, [], [], task="bbox", resamples=0)


def test_seeds_are_paired_and_widen_the_interval(scene):
    truth, results = scene
    rng = np.random.default_rng(0)
    # Two seeds of a model that miss different halves of the objects, and a model that finds a few more of the same.
    kept = rng.random(len(results)) < 0.5
    a = [[one for one, keep in zip(results, kept == part, strict=True) if keep] for part in (True, False)]
    b = [results_of_seed + perfect(truth, 0.01) for results_of_seed in a]
    comparison = compare_seeds(truth, a, b, task="bbox", resamples=200)
    alone = [compare(truth, x, y, task="bbox", resamples=200) for x, y in zip(a, b, strict=True)]
    for metric, first, second in zip(comparison["metrics"], *(one["metrics"] for one in alone), strict=True):
        assert metric["seeds"] == [[first["a"], first["b"]], [second["a"], second["b"]]]
        assert metric["difference"] == pytest.approx((first["difference"] + second["difference"]) / 2)
    # One seed gains and the other loses: their mean is 0, and no number of images makes it real.
    opposed = compare_seeds(truth, [results, b[0]], [b[0], results], task="bbox", resamples=200)["metrics"][0]
    assert opposed["difference"] == pytest.approx(0)
    assert opposed["low"] < 0 < opposed["high"]
    assert not opposed["real"]
    for x, y in ((a, b[:1]), ([], [])):
        with pytest.raises(InputError, match="expected the same number"):
            compare_seeds(truth, x, y, task="bbox")
