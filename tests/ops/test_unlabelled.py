"""The share of boxes, cells and points in ignore regions, against sums over pixels."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn_ext.ops.unlabelled import IgnoreRegion, Unlabelled


def share_by_pixels(mask, box):
    """The covered share of a box: for every pixel, the area of its part inside the box."""
    x0, y0, x1, y1 = box
    columns, rows = np.arange(mask.shape[1]), np.arange(mask.shape[0])
    widths = np.clip(np.minimum(columns + 1, x1) - np.maximum(columns, x0), 0, None)
    heights = np.clip(np.minimum(rows + 1, y1) - np.maximum(rows, y0), 0, None)
    area = (x1 - x0) * (y1 - y0)
    return float((mask * heights[:, None] * widths).sum() / area) if area > 0 else 0.0


coordinate = st.integers(-48, 160).map(lambda eighths: eighths / 8)


@st.composite
def masks_and_boxes(draw):
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 12))
    mask = np.array(draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width)))
    boxes = []
    for _ in range(draw(st.integers(0, 4))):
        (x0, x1), (y0, y1) = (sorted((draw(coordinate), draw(coordinate))) for _ in range(2))
        boxes.append((x0, y0, x1, y1))
    return mask.reshape(height, width), np.array(boxes, dtype=np.float64).reshape(-1, 4)


@given(masks_and_boxes())
@settings(max_examples=40, deadline=None)
def test_share_cells_and_points_are_sums_over_pixels(drawn):
    mask, boxes = drawn
    region = IgnoreRegion(torch.from_numpy(mask))
    found = region.share_of(torch.from_numpy(boxes))
    assert found.tolist() == pytest.approx([share_by_pixels(mask, box) for box in boxes], abs=1e-6)
    cells = region.cells_of(torch.from_numpy(boxes), 3)
    assert cells.shape == (len(boxes), 3, 3)
    for box, of_box in zip(boxes, cells.numpy(), strict=True):
        x, y = np.linspace(box[0], box[2], 4), np.linspace(box[1], box[3], 4)
        for row in range(3):
            for column in range(3):
                share = share_by_pixels(mask, (x[column], y[row], x[column + 1], y[row + 1]))
                if abs(share - 0.5) > 1e-6:
                    assert of_box[row, column] == (share > 0.5)
    points = torch.from_numpy(boxes[:, :2])
    inside = [
        0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and bool(mask[int(y), int(x)]) for x, y in points.tolist()
    ]
    assert region.contains(points).tolist() == inside


@given(masks_and_boxes())
@settings(max_examples=40, deadline=None)
def test_properties_of_the_share(drawn):
    mask, boxes = drawn
    boxes = torch.from_numpy(boxes)
    share, rest = (IgnoreRegion(torch.from_numpy(part)).share_of(boxes) for part in (mask, ~mask))
    whole = IgnoreRegion(torch.ones(mask.shape, dtype=torch.bool)).share_of(boxes)
    assert ((share >= 0) & (share <= whole + 1e-6) & (whole <= 1)).all()
    assert torch.allclose(share + rest, whole, atol=1e-5), "a region and its complement cover the box inside the image"
    mirrored = boxes.clone()
    mirrored[:, [0, 2]] = mask.shape[1] - boxes[:, [2, 0]]
    flipped = IgnoreRegion(torch.from_numpy(mask[:, ::-1].copy())).share_of(mirrored)
    assert torch.allclose(flipped, share, atol=1e-5)


def test_a_selection_keeps_the_value_and_its_length():
    region, classes = IgnoreRegion(torch.ones(2, 2, dtype=torch.bool)), torch.tensor([1])
    field = Unlabelled(3, region, classes)
    selections = (1, slice(1, None), torch.tensor([True, False, True]), torch.tensor([2, 0, 0, 1]))
    assert [len(field[item]) for item in selections] == [1, 2, 2, 4]
    assert all(field[item].region is region and field[item].labelled_classes is classes for item in selections)
    moved = field.to("cpu")
    assert len(moved) == 3
    assert moved.region.mask.equal(region.mask)
    assert Unlabelled(0, None, None).to("cpu").region is None
