"""A training step: both sides have the same loss."""

import pytest
import torch

from maskrcnn_ext.benchmark import training
from tests.benchmark.conftest import SIZE, SMALL, STOCK_AND_OURS, sides


def test_both_sides_take_the_same_step(weights):
    case = (SMALL, str(weights), SIZE, 1, 4)
    losses = []
    for name in STOCK_AND_OURS:
        step = training.open_step(name, *case)
        torch.manual_seed(0)
        losses.append(step())
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


@pytest.mark.slow
def test_training_measures_memory(tables):
    (table,) = tables("training", "--config", SMALL, "--size", "64x96", "--batch", 1, "--objects", 3)
    assert sides(table)[:2] == STOCK_AND_OURS
    assert all(row["values"]["peak MB"] > row["values"]["grows by MB"] > 0 for row in table["rows"])
