"""The piecewise matching is Detectron2's Matcher on the whole matrix, label for label and index for index."""

import pytest
import torch
from detectron2.modeling.matcher import Matcher
from detectron2.structures import Boxes, pairwise_iou
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn_ext.ops.matching import match_boxes

THRESHOLDS = [([0.5], [0, 1]), ([0.3, 0.7], [0, -1, 1]), ([0.25, 0.25, 0.5], [-1, 0, 0, 1]), ([0.3, 1.0], [1, 0, -1])]


def same_as_detectron2(truth, boxes, thresholds, labels, low_quality, piece=None):
    found = match_boxes(truth, boxes, thresholds, labels, allow_low_quality_matches=low_quality, piece=piece)
    expected = Matcher(list(thresholds), labels, low_quality)(pairwise_iou(Boxes(truth), Boxes(boxes)))
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)
    return found


# Corners on a small grid: equal overlaps, overlaps on the thresholds, boxes without an area, and boxes that overlap nothing are common.
corners = st.lists(st.tuples(*[st.integers(0, 6)] * 4), max_size=8)


def boxes_of(rows):
    x, y, width, height = torch.tensor(rows, dtype=torch.float32).reshape(-1, 4).unbind(1)
    return torch.stack([x, y, x + width, y + height], dim=1)


@settings(max_examples=150, deadline=None)
@given(corners, corners, st.sampled_from(THRESHOLDS), st.booleans(), st.sampled_from([1, 3, 16, None]))
def test_small_boxes_with_ties(truth, boxes, levels, low_quality, piece):
    same_as_detectron2(boxes_of(truth), boxes_of(boxes), *levels, low_quality, piece)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 30), st.booleans(), st.sampled_from([64, 1000, None]))
def test_random_boxes_and_ground_truth(seed, count, low_quality, piece):
    generator = torch.Generator().manual_seed(seed)

    def some(number):
        centre = torch.rand(number, 2, generator=generator) * 200
        half = torch.rand(number, 2, generator=generator) * 60
        return torch.cat([centre - half, centre + half], dim=1)

    boxes = some(400)
    # Ground truth that is an anchor, twice, has overlaps of 1 with it.
    truth = torch.cat([some(count), boxes[5:7], boxes[5:6]])
    same_as_detectron2(truth, boxes, [0.3, 0.7], [0, -1, 1], low_quality, piece)


def test_an_overlap_equal_to_a_threshold_belongs_to_the_upper_level():
    truth = torch.tensor([[0.0, 0, 10, 10]])
    boxes = torch.tensor([[0.0, 0, 10, 5], [0, 0, 10, 4.999], [0, 0, 10, 10]])
    _, labels = same_as_detectron2(truth, boxes, [0.5, 1.0], [0, -1, 1], False)
    assert labels.tolist() == [-1, 0, 1]


def test_ground_truth_that_no_box_overlaps_makes_all_boxes_positive():
    """A surprise of Detectron2's: 0 is then the largest overlap, and all boxes have it."""
    truth = torch.tensor([[0.0, 0, 4, 4], [900, 900, 910, 910]])
    boxes = torch.tensor([[0.0, 0, 4, 2], [50, 50, 60, 60], [0, 0, 4, 3]])
    for piece in (1, None):
        matches, labels = same_as_detectron2(truth, boxes, [0.9], [0, 1], True, piece)
        assert labels.tolist() == [1, 1, 1]
        assert matches.tolist() == [0, 0, 0]


@pytest.mark.parametrize("sizes", [(0, 5), (3, 0), (0, 0)])
def test_nothing_to_match(sizes):
    truth, boxes = (torch.ones(size, 4) for size in sizes)
    same_as_detectron2(truth, boxes, [0.3, 0.7], [-1, 0, 1], True)


def test_nan_overlaps_count_as_zero():
    """Sides that float32 cannot square: Detectron2's Matcher stops at the assertion that overlaps are not negative."""
    huge = torch.tensor([[0.0, 0, 1e30, 1e30]])
    assert match_boxes(huge, huge, [0.5], [0, 1])[1].tolist() == [0]


PEAK = """
import resource, sys, torch
from detectron2.modeling.matcher import Matcher
from detectron2.structures import Boxes, pairwise_iou
from maskrcnn_ext.ops.matching import match_boxes
torch.set_num_threads(1)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
centre, half = torch.rand(52000, 2) * 1000, torch.rand(52000, 2) * 50
boxes = torch.cat([centre - half, centre + half], dim=1)
ours = lambda truth, boxes: match_boxes(truth, boxes, [0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True)
stock = lambda truth, boxes: Matcher([0.3, 0.7], [0, -1, 1], True)(pairwise_iou(Boxes(truth), Boxes(boxes)))
run = ours if sys.argv[1] == "ours" else stock
run(boxes[:3], boxes[:300])
before = peak()
run(boxes[50000:], boxes[:50000])
print(peak() - before)
"""


@pytest.mark.slow
def test_memory_at_50000_anchors_and_2000_boxes(run_python, capsys):
    kibibytes = {side: int(run_python("-W", "ignore", "-c", PEAK, side).stdout) for side in ("stock", "ours")}
    with capsys.disabled():
        print(f"\npeak at 50 000 x 2000: {', '.join(f'{k} {v / 1024:.0f} MiB' for k, v in kibibytes.items())}")
    assert kibibytes["ours"] < kibibytes["stock"] / 8
