"""Planted errors: as many of each kind as stated, and a model that knows the truth finds them all."""

import random

import numpy as np

from maskrcnn_ext.data.tools.shapes import make_shapes
from maskrcnn_ext.evaluation.label_errors import KINDS, find_label_errors
from maskrcnn_ext.evaluation.results import load_results
from maskrcnn_ext.evaluation.truth import load_truth
from scripts.plant_label_errors import by_score, hit, plant, shifted


def test_the_truth_finds_every_planted_error(tmp_path):
    truth = load_truth(make_shapes(tmp_path, num_images=12, size=160))
    planted, errors = plant(truth, 0.25, random.Random(0))
    assert {error["kind"] for error in errors} == set(KINDS)
    results = load_results([{**found, "score": 0.9} for found in truth.annotations], planted)
    for rank in (find_label_errors, by_score):
        suspects = rank(planted, results)
        hits = {hit(one, errors, results) for one in suspects[: 3 * len(errors)]} - {None}
        assert len(hits) >= 0.9 * len(errors), rank.__name__
    deleted = sum(error["kind"] == "missing" for error in errors)
    added = sum(error["kind"] == "spurious" for error in errors)
    assert len(planted.annotations) == len(truth.annotations) - deleted + added


def test_masks_are_moved_and_cut_at_the_edge():
    mask = np.zeros((5, 6), np.uint8)
    mask[1:3, 1:3] = 1
    assert shifted(mask, 1, 2)[3:5, 2:4].sum() == shifted(mask, 1, 2).sum() == 4
    assert shifted(mask, 4, 0).sum() == 2
