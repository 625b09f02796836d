"""Losses from points and boxes, against float64 references in numpy, and in the heads that have them."""

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn_ext import InputError
from maskrcnn_ext.modeling.mask_heads.weak_losses import (
    cells_inside,
    pairwise_loss,
    point_supervision_loss,
    projection_loss,
    proposal_points,
)
from maskrcnn_ext.ops.image_colors import ImageColors
from tests.helpers.mask_heads import PYRAMID, build, features, truth


def pointed(counts=(3, 2), points=4):
    """Foreground proposals with points instead of masks; the second image has none."""
    instances = truth(counts)
    generator = torch.Generator().manual_seed(2)
    for image in instances:
        image.remove("gt_masks")
        image.gt_has_mask = torch.zeros(len(image), dtype=torch.bool)
        image.gt_image = ImageColors(len(image), (torch.rand(3, 64, 64, generator=generator) * 255).byte(), is_bgr=True)
    image = instances[0]
    image.gt_point_coords = torch.rand(len(image), points, 2, generator=generator) * 50
    image.gt_point_labels = torch.randint(-1, 2, (len(image), points), generator=generator).float()
    return instances


def test_points_relative_to_their_proposals():
    instances = pointed()
    coords, labels = proposal_points(instances)
    assert coords.shape == (5, 4, 2)
    assert (labels[3:] == -1).all(), "an image without points"
    for box, own, marks, relative, label in zip(
        instances[0].proposal_boxes.tensor.tolist(),
        instances[0].gt_point_coords.tolist(),
        instances[0].gt_point_labels.tolist(),
        coords.tolist(),
        labels.tolist(),
        strict=False,
    ):
        for (x, y), mark, at, found in zip(own, marks, relative, label, strict=True):
            inside = box[0] <= x <= box[2] and box[1] <= y <= box[3]
            assert found == (mark if inside else -1)
            if inside:
                assert at == pytest.approx(
                    [(x - box[0]) / (box[2] - box[0]), (y - box[1]) / (box[3] - box[1])], abs=1e-5
                )
    assert proposal_points([image[:0] for image in instances])[0].shape == (0, 4, 2)


def interpolate(grid, x, y):
    """The value of a grid (S, S) at x and y in [0, 1], between the centres of its cells; 0 outside of the grid."""
    size = len(grid)
    x, y = x * size - 0.5, y * size - 0.5
    total = 0.0
    for row in (int(np.floor(y)), int(np.floor(y)) + 1):
        for column in (int(np.floor(x)), int(np.floor(x)) + 1):
            if 0 <= row < size and 0 <= column < size:
                total += grid[row, column] * (1 - abs(y - row)) * (1 - abs(x - column))
    return total


def test_the_point_loss_equals_its_formula():
    instances = pointed(points=6)
    logits = torch.randn(5, 7, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    coords, labels = proposal_points(instances)
    expected = []
    for grid, points, marks in zip(logits.numpy(), coords.numpy(), labels.numpy(), strict=True):
        for (x, y), mark in zip(points, marks, strict=True):
            if mark >= 0:
                expected.append(np.log1p(np.exp(-interpolate(grid, x, y) * (2 * mark - 1))))
    assert len(expected) > 3
    assert point_supervision_loss(logits, instances).item() == pytest.approx(np.mean(expected), rel=1e-5)
    for image in instances[:1]:
        image.gt_point_labels = torch.full_like(image.gt_point_labels, -1)
    assert point_supervision_loss(logits, instances).item() == 0


def test_cells_inside_a_box():
    columns, rows = cells_inside(torch.tensor([[2.0, 0.0, 7.0, 8.0]]), torch.tensor([[0.0, 0.0, 8.0, 4.0]]), 4)
    assert columns.tolist() == [[False, True, True, False]]  # centres at 1, 3, 5 and 7
    assert rows.tolist() == [[True] * 4]


@given(st.integers(0, 10**6), st.integers(1, 7))
@settings(max_examples=20, deadline=None)
def test_projection_and_pairs_equal_their_formulas(seed, size):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, size, size, generator=generator, dtype=torch.float64) * 2
    colors = torch.randn(2, 3, size, size, generator=generator, dtype=torch.float64)
    columns, rows = (torch.rand(2, size, generator=generator) > 0.4 for _ in range(2))
    probs = 1 / (1 + np.exp(-logits.numpy()))
    expected = 0.0
    for mask, inside_x, inside_y in zip(probs, columns.double().numpy(), rows.double().numpy(), strict=True):
        for found, target in ((mask.max(0), inside_x), (mask.max(1), inside_y)):
            expected += 1 - 2 * (found * target).sum() / max((found**2).sum() + (target**2).sum(), 1e-5)
    assert projection_loss(logits, columns, rows).item() == pytest.approx(expected / 2, abs=1e-9)

    inside = rows[:, :, None] & columns[:, None, :]
    known = torch.rand(2, size, size, generator=generator) > 0.2
    losses = []
    for mask, own, box, used in zip(probs, colors.numpy(), inside.numpy(), known.numpy(), strict=True):
        for y in range(size):
            for x in range(size):
                for down, right in ((0, 2), (2, 0), (2, 2), (2, -2)):
                    v, u = y + down, x + right
                    if not (0 <= v < size and 0 <= u < size and (box[y, x] or box[v, u])):
                        continue
                    if not (used[y, x] and used[v, u]):
                        continue
                    if np.exp(-np.linalg.norm(own[:, y, x] - own[:, v, u]) / 2) >= 0.3:
                        p, q = mask[y, x], mask[v, u]
                        losses.append(-np.log(p * q + (1 - p) * (1 - q)))
    expected = np.mean(losses) if losses else 0.0
    assert pairwise_loss(logits, colors, inside, known).item() == pytest.approx(expected, abs=1e-9)


def test_gradients():
    logits = torch.randn(2, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    inside = torch.ones(2, 5, 5, dtype=torch.bool)
    assert torch.autograd.gradcheck(lambda x: pairwise_loss(x, torch.zeros(2, 3, 5, 5), inside, inside), logits)
    assert torch.autograd.gradcheck(lambda x: projection_loss(x, inside[:, 0], inside[:, 0]), logits)


CASES = [
    ("FCNMaskHead", "points"),
    ("FCNMaskHead", "box"),
    ("FCNMaskHead", "points+box"),
    ("PointRendMaskHead", "points"),
    ("ImplicitPointRendMaskHead", "points"),
]


@pytest.mark.parametrize(("name", "mask_loss"), CASES)
def test_heads_learn_without_masks(name, mask_loss):
    head = build(name, mask_loss=mask_loss)
    # The second image has no object: Detectron2 leaves its proposals without ground truth.
    no_truth = Instances(
        (64, 64), proposal_boxes=Boxes(torch.zeros(0, 4)), gt_classes=torch.zeros(0, dtype=torch.int64)
    )
    for instances in (pointed(), [pointed()[0], no_truth], [no_truth, no_truth]):
        head.zero_grad()
        count = sum(map(len, instances))
        with EventStorage():
            losses = head(features(name, count), instances)
        sum(losses.values()).backward()
        gradients = [parameter.grad for parameter in head.parameters()]
        assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients)
        assert any(gradient.any() for gradient in gradients) == (count > 0)


def learned_mask(image, mask_loss, steps):
    """The mask (24, 24) of a free grid of logits over the only proposal of an image after some steps."""
    head = build("FCNMaskHead", mask_loss=mask_loss, pairwise_warmup=0)
    logits = torch.zeros(1, 3, 24, 24, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(steps):
        optimizer.zero_grad()
        with EventStorage():
            head.grid_loss(logits, [image]).backward()
        optimizer.step()
    return logits[0, 0] > 0


@pytest.mark.parametrize("mask_loss", ["points", "box"])
def test_a_few_steps_find_the_object(mask_loss):
    """A bright square on black: a free grid of logits becomes the square, from points as from its box."""
    image = Instances((64, 64), proposal_boxes=Boxes(torch.tensor([[8.0, 8.0, 56.0, 56.0]])))
    image.gt_boxes = Boxes(torch.tensor([[20.0, 20.0, 44.0, 44.0]]))
    image.gt_classes = torch.zeros(1, dtype=torch.int64)
    pixels = torch.zeros(3, 64, 64, dtype=torch.uint8)
    pixels[:, 20:44, 20:44] = 255
    image.gt_image = ImageColors(1, pixels, is_bgr=True)
    points = torch.rand(1, 200, 2, generator=torch.Generator().manual_seed(0)) * 48 + 8
    image.gt_point_coords, image.gt_point_labels = points, ((points >= 20) & (points < 44)).all(dim=2).float()
    found = learned_mask(image, mask_loss, steps=60)
    expected = torch.zeros(24, 24, dtype=torch.bool)
    expected[6:18, 6:18] = True
    assert (found == expected).float().mean() > 0.9


@pytest.mark.parametrize("corner", [(20.0, 20.0), (0.0, 40.0)])
def test_the_corners_of_a_tight_proposal_are_background(corner):
    """A bright disc on black, whose proposal is its box: also at the edge of the image, where the margin has no pixels."""
    x, y = corner
    image = Instances((64, 64), proposal_boxes=Boxes(torch.tensor([[x, y, x + 24, y + 24]])))
    image.gt_boxes = image.proposal_boxes
    image.gt_classes = torch.zeros(1, dtype=torch.int64)
    rows, columns = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(64) + 0.5, indexing="ij")
    disc = (columns - x - 12) ** 2 + (rows - y - 12) ** 2 < 12**2
    image.gt_image = ImageColors(1, (disc * 255).byte().expand(3, -1, -1), is_bgr=True)
    found = learned_mask(image, "box", steps=100)
    expected = disc[int(y) : int(y) + 24, int(x) : int(x) + 24]
    assert (found & expected).sum() / (found | expected).sum() > 0.9


def test_wrong_names_and_missing_colours():
    with pytest.raises(InputError, match="cannot be added to one from points or boxes"):
        build("FCNMaskHead", mask_loss="bce+points")
    with pytest.raises(InputError, match="'points' is unknown"):
        build("BoundaryMaskHead", mask_loss="points")
    with pytest.raises(InputError, match="ImplicitPointRendMaskHead has bce and points"):
        build("ImplicitPointRendMaskHead", mask_loss="box")
    instances = pointed()
    for image in instances:
        image.remove("gt_image")
    with EventStorage(), pytest.raises(InputError, match="keep_image=true"):
        build("FCNMaskHead", mask_loss="box")(features("FCNMaskHead"), instances)
    assert "PointRendMaskHead" in PYRAMID
