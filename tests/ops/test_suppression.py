"""Suppression against the papers' pseudo-code, written in float64 NumPy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_util
from torchvision.ops import batched_nms

from maskrcnn_ext.ops.suppression import diou_nms, mask_nms, maskness, soft_nms


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    area = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return shared / (sum(area) - shared)


def diou(a, b):
    centre = [((box[0] + box[2]) / 2, (box[1] + box[3]) / 2) for box in (a, b)]
    diagonal = [max(a[2 + axis], b[2 + axis]) - min(a[axis], b[axis]) for axis in (0, 1)]
    distance = sum((p - q) ** 2 for p, q in zip(*centre, strict=True))
    return iou(a, b) - distance / sum(side**2 for side in diagonal)


def greedy(overlap, boxes, scores, groups, threshold):
    left, kept = sorted(range(len(scores)), key=lambda i: -scores[i]), []
    while left:
        best = left.pop(0)
        kept.append(best)
        left = [i for i in left if groups[i] != groups[best] or not overlap(boxes[best], boxes[i]) > threshold]
    return kept


def soft_reference(boxes, scores, groups, sigma, threshold):
    scores, left, kept = list(scores), list(range(len(scores))), []
    while left:
        best = max(left, key=lambda i: scores[i])
        left.remove(best)
        kept.append(best)
        for i in left:
            if groups[i] == groups[best]:
                scores[i] *= math.exp(-(iou(boxes[best], boxes[i]) ** 2) / sigma)
    return [(i, scores[i]) for i in kept if scores[i] > threshold]


def detections(seed, count):
    """Boxes in few places, so that many overlap; coordinates are multiples of 1/4, which float32 holds exactly."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 80, (count, 2)) / 4
    size = rng.integers(8, 60, (count, 2)) / 4
    boxes = np.concatenate([corner, corner + size], axis=1)
    scores = rng.permutation(count).astype(np.float32) / (count + 1) + np.float32(0.01)
    return boxes, scores, rng.integers(0, 2, count)


def tensors(boxes, scores, groups):
    return torch.from_numpy(boxes).float(), torch.from_numpy(scores), torch.from_numpy(groups)


many = settings(max_examples=25, deadline=None)
seeds = given(seed=st.integers(0, 10_000), count=st.integers(0, 40))


@many
@seeds
def test_diou_nms_is_the_papers(seed, count):
    found = detections(seed, count)
    assert diou_nms(*tensors(*found), threshold=0.413).tolist() == greedy(diou, *found, 0.413)


@many
@seeds
def test_soft_nms_is_the_papers(seed, count):
    found = detections(seed, count)
    keep, scores = soft_nms(*tensors(*found), sigma=0.5, score_threshold=0.1)
    expected = soft_reference(*found, 0.5, 0.1)
    assert keep.tolist() == [index for index, _ in expected]
    np.testing.assert_allclose(scores.numpy(), [score for _, score in expected], rtol=1e-5)
    first, _ = soft_nms(*tensors(*found), sigma=0.5, score_threshold=0.1, limit=3)
    assert first.tolist() == keep.tolist()[:3]


def rle_of(box):
    mask = np.zeros((40, 40), np.uint8)
    x0, y0, x1, y1 = box.astype(int)
    mask[y0:y1, x0:x1] = 1
    return mask_util.encode(np.asfortranarray(mask))


@many
@seeds
def test_mask_nms_of_filled_boxes_is_box_nms(seed, count):
    boxes, scores, groups = detections(seed, count)
    boxes = np.round(boxes)
    keep = mask_nms([rle_of(box) for box in boxes], *tensors(boxes, scores, groups), threshold=0.413)
    assert keep.tolist() == greedy(iou, boxes, scores, groups, 0.413)
    assert keep.tolist() == batched_nms(*tensors(boxes, scores, groups), 0.413).tolist()


def test_masks_tell_diagonal_neighbours_apart():
    line = np.eye(40, dtype=np.uint8)
    beside = np.roll(line, 4, axis=1)
    rles = [mask_util.encode(np.asfortranarray(mask)) for mask in (line, beside)]
    boxes = torch.tensor([[0.0, 0, 40, 40], [0.0, 0, 40, 40]])
    scores, groups = torch.tensor([0.8, 0.9]), torch.zeros(2)
    assert mask_nms(rles, boxes, scores, groups, 0.5).tolist() == [1, 0]
    assert batched_nms(boxes, scores, groups, 0.5).tolist() == [1]
    assert mask_nms([rles[0], rles[0]], boxes, scores, groups, 0.5).tolist() == [1]


@pytest.mark.parametrize("shape", [(0, 5, 5), (4, 7, 7)])
def test_maskness_is_the_mean_inside(shape):
    probs = np.random.default_rng(0).random(shape)
    expected = [mask[mask >= 0.5].mean() for mask in probs]
    np.testing.assert_allclose(maskness(torch.from_numpy(probs)).numpy(), expected, rtol=1e-6)
