"""Fused predictions are those of a dense reference in float64."""

import tracemalloc

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn_ext.inference.fusion import fuse_predictions
from maskrcnn_ext.ops.rle import encode_mask, with_byte_counts
from maskrcnn_ext.ops.rle_masks import RLEMasks
from maskrcnn_ext.ops.rle_segments import Segments

SIZE = (24, 30)


def instances(rows):
    """Rows of (class, score, mask (H, W))."""
    found = Instances(SIZE)
    found.scores = torch.tensor([score for _, score, _ in rows], dtype=torch.float32)
    found.pred_classes = torch.tensor([own for own, _, _ in rows], dtype=torch.int64)
    boxes = [[*np.argwhere(m.T).min(0), *(np.argwhere(m.T).max(0) + 1)] for _, _, m in rows]
    found.pred_boxes = Boxes(torch.tensor(np.array(boxes, dtype=np.float32).reshape(-1, 4)))
    found.pred_masks = RLEMasks([with_byte_counts(encode_mask(mask)) for _, _, mask in rows], SIZE)
    return found


def disc(x, y, radius):
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def reference(models, agreement):
    """Weighted boxes fusion by dense masks; returns (class, score, box, mask), the highest score first."""
    rows = [
        (score, number, own, box, mask)
        for number, found in enumerate(models)
        for own, score, box, mask in zip(
            found.pred_classes.tolist(),
            found.scores.double().tolist(),
            found.pred_boxes.tensor.double().numpy(),
            found.pred_masks.to_dense().numpy(),
            strict=True,
        )
    ]
    groups = []
    for row in sorted(rows, key=lambda row: (row[2], -row[0])):
        fitting = []
        for group in groups:
            head = group[0]
            iou = (head[4] & row[4]).sum() / (head[4] | row[4]).sum()
            if head[2] == row[2] and iou >= agreement and row[1] not in {other[1] for other in group}:
                fitting.append((iou, group))
        if fitting:
            max(fitting, key=lambda entry: entry[0])[1].append(row)
        else:
            groups.append([row])
    fused = []
    for group in groups:
        weights = np.array([row[0] for row in group])
        box = (weights[:, None] * [row[3] for row in group]).sum(0) / weights.sum()
        votes = (weights[:, None, None] * [row[4] for row in group]).sum(0) / weights.sum()
        fused.append((group[0][2], weights.sum() / len(models), box, votes >= 0.5 - 1e-9))
    return sorted(fused, key=lambda row: -row[1])


@st.composite
def predictions(draw):
    """Three models that see most of up to four objects, each a little elsewhere and with a different score."""
    numbers = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    objects = [
        (numbers.integers(0, 2), *numbers.integers(5, 20, 2), numbers.integers(2, 7))
        for _ in range(numbers.integers(0, 5))
    ]
    return [
        instances(
            [
                (
                    int(own),
                    float(numbers.uniform(0.05, 1)),
                    disc(x + numbers.integers(-1, 2), y, r + numbers.integers(0, 2)),
                )
                for own, x, y, r in objects
                if numbers.uniform() < 0.8
            ]
        )
        for _ in range(3)
    ]


@given(models=predictions(), agreement=st.sampled_from([0.3, 0.55, 0.9]))
@settings(max_examples=40, deadline=None)
def test_as_the_reference(models, agreement):
    fused, expected = fuse_predictions(models, agreement=agreement), reference(models, agreement)
    assert len(fused) == len(expected)
    for index, (own, score, box, mask) in enumerate(expected):
        assert int(fused.pred_classes[index]) == own
        assert float(fused.scores[index]) == pytest.approx(score, rel=1e-6)
        np.testing.assert_allclose(fused.pred_boxes.tensor[index].numpy(), box, rtol=1e-6)
        np.testing.assert_array_equal(fused.pred_masks[index].numpy(), mask)


def test_a_detection_of_one_of_three_models_has_a_third_of_its_score():
    found = [instances([(0, 0.9, disc(10, 10, 5))]), instances([]), instances([])]
    fused = fuse_predictions(found)
    assert fused.scores.tolist() == pytest.approx([0.3])
    assert (fused.pred_masks[0].numpy() == disc(10, 10, 5)).all()


def test_nothing_found_is_nothing():
    assert len(fuse_predictions([instances([]), instances([])])) == 0


def test_two_objects_of_one_model_stay_two():
    near = [(0, 0.9, disc(10, 10, 6)), (0, 0.8, disc(11, 10, 6))]
    assert len(fuse_predictions([instances(near), instances(near[:1])])) == 2


def test_boxes_and_keypoints_without_masks():
    found = []
    for offset, score in ((0.0, 0.75), (2.0, 0.25)):
        each = Instances(SIZE)
        each.pred_boxes = Boxes(torch.tensor([[offset, 0, 20 + offset, 10]]))
        each.scores, each.pred_classes = torch.tensor([score]), torch.tensor([1])
        each.pred_keypoints = torch.tensor([[[5 + offset, 5.0, 1.0]]])
        found.append(each)
    fused = fuse_predictions(found)
    assert fused.pred_boxes.tensor.tolist() == [[0.5, 0, 20.5, 10]]
    assert fused.pred_keypoints.tolist() == [[[5.5, 5.0, 1.0]]]
    assert fused.scores.tolist() == [0.5]


def test_masks_of_a_large_image_need_memory_for_their_boxes_only():
    size = (20_000, 20_000)
    square = Segments.of_box(50, 100, 150, 200).to_rle(size)
    found = []
    for score in (0.9, 0.8):
        each = Instances(size, pred_boxes=Boxes([[50, 100, 150, 200]]), scores=torch.tensor([score]))
        each.pred_classes, each.pred_masks = torch.tensor([0]), RLEMasks([square], size)
        found.append(each)
    tracemalloc.start()
    fused = fuse_predictions(found)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert fused.pred_masks.areas().tolist() == [10_000]
    assert peak < 2_000_000  # a mask of the image has 400 million pixels
