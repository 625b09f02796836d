"""The mask losses against independent references, and their gradients."""

import numpy as np
import pytest
import torch
from detectron2.utils.events import EventStorage
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from maskrcnn_ext import InputError
from maskrcnn_ext.modeling.mask_heads.boundary import boundary_loss
from maskrcnn_ext.modeling.mask_heads.losses import MASK_LOSSES, check_mask_loss, dice_loss, mask_loss_value
from tests.helpers.mask_heads import GRID_HEADS, build, features, truth


def random_pair(seed=0, count=3, size=6):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, size, size, generator=generator, dtype=torch.float64)
    targets = (torch.rand(count, size, size, generator=generator) > 0.5).double()
    return logits, targets


@pytest.mark.parametrize("name", MASK_LOSSES)
def test_gradients(name):
    logits, targets = random_pair()
    assert torch.autograd.gradcheck(lambda x: MASK_LOSSES[name](x, targets), logits.requires_grad_())


@pytest.mark.parametrize("name", MASK_LOSSES)
def test_loss_is_lower_for_a_correct_mask_and_tends_to_zero(name):
    _, targets = random_pair()
    signs = 2 * targets - 1
    right, unsure, wrong = (MASK_LOSSES[name](signs * scale, targets) for scale in (30.0, 0.0, -30.0))
    assert right < unsure < wrong
    assert right < 0.01  # dice's smoothing keeps it from zero


@pytest.mark.parametrize("name", MASK_LOSSES)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_targets_that_are_all_foreground_or_all_background(name, value):
    logits = torch.randn(2, 5, 5, dtype=torch.float64, requires_grad=True)
    loss = MASK_LOSSES[name](logits, torch.full((2, 5, 5), value, dtype=torch.float64))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_bce_is_the_stock_loss():
    logits, targets = random_pair()
    assert MASK_LOSSES["bce"](logits, targets) == F.binary_cross_entropy_with_logits(logits, targets)


def test_dice_equals_its_formula():
    logits, targets = random_pair()
    p, y = 1 / (1 + np.exp(-logits.numpy())), targets.numpy()
    expected = [1 - (2 * (a * b).sum() + 1) / ((a**2).sum() + (b**2).sum() + 1) for a, b in zip(p, y, strict=True)]
    assert MASK_LOSSES["dice"](logits, targets).item() == pytest.approx(np.mean(expected), abs=1e-12)


def test_focal_equals_its_formula():
    logits, targets = random_pair()
    p, y = 1 / (1 + np.exp(-logits.numpy())), targets.numpy()
    right = np.where(y == 1, p, 1 - p)
    expected = (-((1 - right) ** 2) * np.log(right)).mean()
    assert MASK_LOSSES["focal"](logits, targets).item() == pytest.approx(expected, abs=1e-12)


@given(st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_lovasz_equals_the_jaccard_loss_at_unit_margins(seed):
    """On the corners of its domain (errors of 0 or 1) the Lovász extension is the set function: one minus IoU of the mistakes."""
    generator = torch.Generator().manual_seed(seed)
    targets = (torch.rand(1, 4, 4, generator=generator) > 0.4).double()
    wrong = (torch.rand(1, 4, 4, generator=generator) > 0.6).double()
    logits = (2 * targets - 1) * (1 - wrong)  # an error of 1 where wrong, else of 0
    union = ((targets + wrong) > 0).sum()
    expected = 0.0 if union == 0 else (wrong.sum() / union).item()
    assert MASK_LOSSES["lovasz"](logits, targets).item() == pytest.approx(expected, abs=1e-12)


def test_the_boundary_weighs_five_times():
    targets = torch.zeros(1, 9, 9, dtype=torch.float64)
    targets[:, 3:6, 3:6] = 1
    at = {}
    for name, cell in (("beside", (3, 3)), ("far", (0, 0))):
        logits = (2 * targets - 1) * 40
        logits[0, cell[0], cell[1]] *= -1
        at[name] = MASK_LOSSES["boundary"](logits, targets)
    assert (at["beside"] / at["far"]).item() == pytest.approx(5, abs=1e-9)


def test_sums_and_wrong_names():
    logits, targets = random_pair()
    both = mask_loss_value("bce+dice", logits, targets)
    parts = sum(MASK_LOSSES[name](logits.float(), targets.float()) for name in ("bce", "dice"))
    assert both.item() == pytest.approx(parts.item(), abs=1e-6)
    with pytest.raises(
        InputError, match=r"mask_loss=bce\+jaccard: 'jaccard' is unknown: set one of bce, boundary, dice, focal, lovasz"
    ):
        check_mask_loss("bce+jaccard")


def test_dice_without_squares_equals_its_formula():
    logits, targets = random_pair()
    p, y = 1 / (1 + np.exp(-logits.numpy())), targets.numpy()
    expected = [1 - (2 * (a * b).sum() + 1) / (a.sum() + b.sum() + 1) for a, b in zip(p, y, strict=True)]
    assert dice_loss(logits, targets, squared=False).item() == pytest.approx(np.mean(expected), abs=1e-12)


def test_boundary_loss_is_dice_plus_bce():
    logits, targets = random_pair()
    expected = mask_loss_value("bce+dice", logits, targets)
    assert boundary_loss(logits, targets).item() == pytest.approx(expected.item(), abs=1e-6)


@pytest.mark.parametrize("name", GRID_HEADS)
@pytest.mark.parametrize("mask_loss", ["dice", "focal", "lovasz", "boundary", "bce+dice"])
def test_the_mask_loss_is_one_option(name, mask_loss):
    x = features(name)
    with EventStorage():
        torch.manual_seed(0)
        stock = build(name)(x, truth())["loss_mask"]
        torch.manual_seed(0)
        loss = build(name, mask_loss=mask_loss)(x, truth())["loss_mask"]
    assert torch.isfinite(loss)
    assert loss != stock


@pytest.mark.parametrize("name", GRID_HEADS)
def test_unknown_mask_loss_is_an_error(name):
    with pytest.raises(InputError, match="'diec' is unknown: set one of bce, boundary, dice, focal, lovasz"):
        build(name, mask_loss="diec")


@pytest.mark.parametrize("name", MASK_LOSSES)
def test_unlabelled_pixels_have_no_influence(name):
    logits, targets = random_pair()
    known = random_pair(1)[1].bool()
    known[1] = False
    logits.requires_grad_()
    loss = MASK_LOSSES[name](logits, targets, known)
    loss.backward()
    assert (logits.grad[~known] == 0).all()
    assert (logits.grad[known] != 0).any()
    with torch.no_grad():
        assert MASK_LOSSES[name](torch.where(known, logits, 7.0), targets, known).item() == pytest.approx(loss.item())
        assert MASK_LOSSES[name](logits, targets, torch.ones_like(known)).item() == pytest.approx(
            MASK_LOSSES[name](logits, targets).item(), abs=1e-12
        )
        assert torch.isfinite(MASK_LOSSES[name](logits, targets, torch.zeros_like(known)))


@given(st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_losses_of_the_known_pixels_equal_those_of_a_smaller_grid(seed):
    """Left out columns are as good as no columns; the boundary's weights depend on neighbours, and are checked above."""
    logits, targets = random_pair(seed)
    known = torch.zeros(3, 6, 6, dtype=torch.bool)
    known[:, :, :4] = True
    for name in ("bce", "dice", "focal", "lovasz"):
        expected = MASK_LOSSES[name](logits[:, :, :4], targets[:, :, :4])
        assert MASK_LOSSES[name](logits, targets, known).item() == pytest.approx(expected.item(), abs=1e-12)
