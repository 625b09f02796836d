"""Images to label: entropies and disagreement by hand, the choice against brute force, and scores of a model."""

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from maskrcnn_ext.inference.predictor import Predictor
from maskrcnn_ext.inference.selection import (
    ScoredImage,
    View,
    choose,
    disagreement,
    k_center_greedy,
    score_images,
    uncertainty,
)
from maskrcnn_ext.inference.sources import find_inputs


def view(*rows):
    """Of (x0, y0, x1, y1, score, class)."""
    table = np.array(rows, float).reshape(-1, 6)
    return View(table[:, :4], table[:, 4], table[:, 5].astype(int))


def test_entropy_counts_uncertain_objects():
    assert uncertainty(view()) == 0
    assert uncertainty(view((0, 0, 1, 1, 0.5, 0), (0, 0, 1, 1, 0.5, 0))) == 2
    assert uncertainty(view((0, 0, 1, 1, 0.9, 0))) == pytest.approx(0.468996, abs=1e-5)


def test_disagreement_is_the_part_that_the_other_view_lacks():
    one = view((0, 0, 4, 4, 0.8, 0), (10, 10, 14, 14, 0.4, 1))
    assert disagreement(one, one) == 0
    assert disagreement(one, view()) == disagreement(view(), one) == pytest.approx((0.8 + 0.4) / 2)
    other_class = view((0, 0, 4, 4, 0.8, 1), (10, 10, 14, 14, 0.4, 1))
    assert disagreement(one, other_class) == pytest.approx(0.8)
    half = view((0, 0, 4, 2, 0.8, 0), (10, 10, 14, 14, 0.4, 1))  # IoU 0.5
    assert disagreement(one, half) == pytest.approx(0.4)
    assert disagreement(one, half) == disagreement(half, one)


def test_views_of_a_mirror_image_are_turned_back_and_weak_detections_left_out():
    found = Instances((20, 30))
    found.pred_boxes = Boxes(torch.tensor([[2.0, 3, 8, 9], [0, 0, 1, 1]]))
    found.scores, found.pred_classes = torch.tensor([0.7, 0.05]), torch.tensor([1, 0])
    turned = View.of(found, mirrored=True)
    np.testing.assert_array_equal(turned.boxes, [[22, 3, 28, 9]])
    assert turned.classes.tolist() == [1]


@settings(max_examples=40, deadline=None)
@given(points=arrays(np.float32, (7, 2), elements=st.integers(0, 50)), count=st.integers(1, 9))
def test_each_next_point_is_the_furthest(points, count):
    chosen = k_center_greedy(points, count)
    assert len(chosen) == len(set(chosen)) == min(count, 7)
    for position in range(1, len(chosen)):
        distances = np.linalg.norm(points[:, None] - points[chosen[:position]], axis=2).min(axis=1)
        left = [index for index in range(7) if index not in chosen[:position]]
        assert distances[chosen[position]] == distances[left].max()


@settings(max_examples=20, deadline=None)
@given(
    points=arrays(np.float32, (6, 2), elements=st.integers(0, 50)),
    centres=arrays(np.float32, (3, 2), elements=st.integers(0, 50)),
)
def test_the_first_point_is_the_furthest_from_the_centres(points, centres):
    chosen = k_center_greedy(points, 2, centres)
    distances = np.linalg.norm(points[:, None] - centres, axis=2).min(axis=1)
    assert distances[chosen[0]] == distances.max()
    assert chosen == k_center_greedy(np.concatenate([points, centres]), 6, centres)[:2]


def test_only_images_of_high_scores_are_candidates_and_alike_ones_are_not_chosen_together():
    def image(score, angle):
        feature = np.float32([np.cos(angle), np.sin(angle)])
        return ScoredImage(None, score, 0.0, 0, feature)

    scored = [image(9 - index / 10, 0.001 * index) for index in range(6)] + [image(5, 1.5), image(4, 1.6), image(0, 3)]
    assert choose(scored, 2) == [0, 7]  # 8 candidates: the last image differs most, and is certain
    assert sorted(choose(scored, 20)) == list(range(9))
    assert choose([], 3) == []
    # An image like a labelled one comes last, independently of its score.
    assert choose(scored, 2, np.float32([[1, 0]])) == [7, 6]


def test_a_model_is_compared_with_its_mirror_image_or_with_other_models(run, spec, tmp_path):
    items = find_inputs([spec]).items[:3]
    predictor = Predictor(run, device="cpu")
    alone, failed = score_images([predictor], items)
    assert not failed
    assert [one.item for one in alone] == items
    assert all(one.uncertainty > 0 and one.disagreement > 0 for one in alone)
    assert len({one.uncertainty for one in alone}) == 3
    twice, _ = score_images([predictor, predictor], items)
    assert [one.disagreement for one in twice] == [0, 0, 0]
    assert [one.uncertainty for one in twice] == [one.uncertainty for one in alone]
    for one, other in zip(alone, twice, strict=True):
        assert np.linalg.norm(one.feature) == pytest.approx(1, abs=1e-5)
        np.testing.assert_array_equal(one.feature, other.feature)
    assert not predictor.model.backbone._forward_hooks


def test_images_that_cannot_be_read_are_named(run, tmp_path, photo):
    (tmp_path / "broken.png").write_bytes(b"x")
    scored, failed = score_images([Predictor(run, device="cpu")], find_inputs([str(tmp_path), str(photo)]).items)
    assert [one.item.file_name for one in scored] == [str(photo)]
    assert list(failed) == [str(tmp_path / "broken.png")]
