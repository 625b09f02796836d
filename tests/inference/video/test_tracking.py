"""Tracking: ids are kept through motion, crossings, gaps and faint frames, on masks that are never decoded and on boxes."""

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_util

from maskrcnn_ext import InputError
from maskrcnn_ext.inference.video.tracking import Tracker, _shift_rle
from maskrcnn_ext.ops.rle_masks import RLEMasks

SIZE = (60, 200)


def rle_of(mask):
    return mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))


def disc(x, y, radius=8):
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    return (columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2 <= radius**2


def frame(objects, *, masks=True):
    """Detections of discs (x, y, score, category) that are inside the frame."""
    objects = [(*each, 0.9, 0)[:4] if len(each) == 2 else each for each in objects]
    objects = [each for each in objects if disc(*each[:2]).any()]
    rles = [rle_of(disc(x, y)) for x, y, *_ in objects]
    boxes = np.array([mask_util.toBbox(rle) for rle in rles]).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    found = Instances(SIZE, pred_boxes=Boxes(torch.from_numpy(boxes).float()))
    found.scores = torch.tensor([each[2] for each in objects], dtype=torch.float32)
    found.pred_classes = torch.tensor([each[3] for each in objects], dtype=torch.int64)
    if masks:
        found.pred_masks = RLEMasks(rles, SIZE)
    return found


def ids(tracker, objects, **options):
    return tracker.update(frame(objects, **options)).track_ids.tolist()


@pytest.mark.parametrize("masks", [True, False], ids=["masks", "boxes"])
def test_ids_are_kept_while_objects_move_and_change_their_order(masks):
    tracker = Tracker()
    for step in range(12):
        objects = [(20 + 5 * step, 15), (180 - 5 * step, 45), (100, 30)]
        expected = [1, 2, 3]
        if step % 2:
            objects, expected = objects[::-1], [3, 2, 1]
        assert ids(tracker, objects, masks=masks) == expected


@pytest.mark.parametrize("masks", [True, False], ids=["masks", "boxes"])
def test_objects_that_meet_and_pass_keep_their_ids(masks):
    """At 6 pixels a frame each: each is where the other was, and only the motion distinguishes them."""
    tracker = Tracker()
    for step in range(26):
        assert ids(tracker, [(20 + 6 * step, 30), (170 - 6 * step, 30)], masks=masks) == [1, 2]


def test_an_object_hidden_for_a_while_keeps_its_id():
    tracker = Tracker(max_unseen=8)
    for step in range(20):
        hidden = 6 <= step < 14
        objects = [(20 + 8 * step, 20)] * (not hidden) + [(100, 50)]
        assert ids(tracker, objects) == [1, 2][hidden:]


def test_an_object_hidden_for_too_long_gets_a_new_id():
    tracker = Tracker(max_unseen=2)
    assert ids(tracker, [(50, 30)]) == [1]
    for _ in range(3):
        assert ids(tracker, []) == []
    assert ids(tracker, [(50, 30)]) == [2]


def test_low_scores_continue_a_track_but_start_none():
    tracker = Tracker(min_score=0.5)
    assert ids(tracker, [(50, 30, 0.9, 0), (120, 30, 0.3, 0)]) == [1]
    assert ids(tracker, [(52, 30, 0.2, 0), (120, 30, 0.3, 0)]) == [1]
    assert ids(tracker, [(54, 30, 0.05, 0)]) == []


def test_a_high_score_is_assigned_before_a_low_one_that_fits_better():
    tracker = Tracker()
    tracker.update(frame([(50, 30)]))
    kept = tracker.update(frame([(50, 30, 0.3, 0), (53, 30, 0.9, 0)]))
    assert kept.track_ids.tolist() == [1]
    assert kept.scores.tolist() == pytest.approx([0.9])


def test_a_track_has_one_class():
    tracker = Tracker()
    assert ids(tracker, [(50, 30, 0.9, 0)]) == [1]
    assert ids(tracker, [(50, 30, 0.9, 1)]) == [2]
    assert ids(tracker, [(50, 30, 0.9, 0), (50, 30, 0.9, 1)]) == [1, 2]


def test_the_sum_of_overlaps_decides_not_the_best_pair():
    """The first track fits the second detection best, but then the second track would have none."""
    tracker = Tracker()
    assert ids(tracker, [(50, 30), (60, 30)]) == [1, 2]
    assert ids(tracker, [(44, 30), (54.5, 30)]) == [1, 2]


def test_masks_distinguish_objects_of_one_box():
    """Two halves of a square along its diagonal."""
    upper = np.triu(np.ones((40, 40), bool))
    halves = [np.zeros(SIZE, bool), np.zeros(SIZE, bool)]
    halves[0][10:50, 50:90], halves[1][10:50, 50:90] = upper, ~upper

    def both(order):
        found = Instances(SIZE, pred_boxes=Boxes(torch.tensor([[50.0, 10, 90, 50]] * 2)))
        found.scores, found.pred_classes = torch.tensor([0.9, 0.9]), torch.tensor([0, 0])
        found.pred_masks = RLEMasks([rle_of(halves[index]) for index in order], SIZE)
        return found

    tracker = Tracker()
    assert tracker.update(both([0, 1])).track_ids.tolist() == [1, 2]
    assert tracker.update(both([1, 0])).track_ids.tolist() == [2, 1]


def test_the_result_is_the_detections_with_tracks():
    tracker = Tracker()
    found = frame([(20, 30, 0.3, 0), (80, 30, 0.9, 1), (140, 30, 0.8, 0)])
    kept = tracker.update(found)
    assert kept.track_ids.tolist() == [1, 2]
    assert kept.track_ids.dtype == torch.int64
    assert torch.equal(kept.pred_boxes.tensor, found.pred_boxes.tensor[1:])
    assert kept.pred_masks.rles == found.pred_masks.rles[1:]
    assert kept.image_size == SIZE
    assert not found.has("track_ids")


def test_empty_masks_and_frames():
    tracker = Tracker()
    for _ in range(2):
        empty = tracker.update(frame([]))
        assert empty.track_ids.shape == (0,)
    found = frame([(50, 30)])
    found.pred_masks = RLEMasks([rle_of(np.zeros(SIZE))], SIZE)
    assert tracker.update(found).track_ids.tolist() == [1]
    assert tracker.update(frame([(50, 30)])).track_ids.tolist() == [2]


def test_frames_of_another_size_are_refused():
    tracker = Tracker()
    tracker.update(frame([(50, 30)]))
    with pytest.raises(InputError, match=r"\(30, 40\).*those before \(60, 200\)") as caught:
        tracker.update(Instances((30, 40), pred_boxes=Boxes(torch.zeros(0, 4)), scores=torch.zeros(0)))
    assert "\n" not in str(caught.value)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(-15, 15), st.integers(-15, 15))
def test_a_shifted_rle_is_the_shifted_mask(seed, x, y):
    height, width = 9, 12
    mask = np.random.default_rng(seed).random((height, width)) < 0.4
    expected = np.zeros_like(mask)
    room = np.pad(mask, 15)
    expected[:] = room[15 - y : 15 - y + height, 15 - x : 15 - x + width]
    assert np.array_equal(mask_util.decode(_shift_rle(rle_of(mask), x, y)), expected)
