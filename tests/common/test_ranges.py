"""Arguments of wrong types are outside of every range, so that their errors are one line."""

import numpy as np
import pytest
import torch

from maskrcnn_ext import InputError, SafeMapper
from maskrcnn_ext.common.ranges import is_at_least, is_share
from maskrcnn_ext.data.mapping.sampling import class_balanced_sampler, repeat_factor_sampler
from maskrcnn_ext.evaluation.summary import evaluate
from maskrcnn_ext.inference.ensemble import EnsemblePredictor
from maskrcnn_ext.modeling.layer_decay import layer_decay_params
from maskrcnn_ext.ops.tile_grid import TileGrid

NO_NUMBERS = ["x", None, [0.5], {}, 1j, float("nan"), np.array([0.1, 0.2]), torch.tensor([0.1, 0.2])]


@pytest.mark.parametrize("value", [0.5, 1, True, np.float32(0.5), np.int64(1), torch.tensor(0.5)])
def test_numbers_of_any_kind(value):
    assert is_share(value)
    assert is_share(value, above_zero=True)
    assert is_at_least(value, 0.5)
    assert not is_at_least(value, 1.5)


@pytest.mark.parametrize("value", [*NO_NUMBERS, -0.1, 1.1])
def test_anything_else_is_no_share(value):
    assert not is_share(value)


def test_zero_may_be_outside():
    assert is_share(0)
    assert not is_share(0.0, above_zero=True)


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_anything_else_is_not_at_least(value):
    assert not is_at_least(value, 0)


def mapper(**options):
    return SafeMapper(True, augmentations=[], image_format="BGR", **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mapper(max_bad_share="x"), "max_bad_share=x: expected a share"),
        (lambda: mapper(point_share=None), "point_share=None: expected a share"),
        (
            lambda: repeat_factor_sampler(dataset=[{"annotations": []}], threshold="x"),
            "threshold is x, expected a share",
        ),
        (
            lambda: class_balanced_sampler(dataset=[{"annotations": []}], max_factor="x"),
            "max_factor is x, expected at least 1",
        ),
        (lambda: TileGrid(90, 90, "x", 0.2), "tile=x: expected the side of a tile"),
        (lambda: TileGrid(90, 90, 64, "x"), "overlap=x: expected a fraction"),
        (lambda: evaluate({}, [], iou="x"), "iou is x and score_threshold 0.5: expected numbers"),
        (lambda: evaluate({}, [], max_detections="x"), "max_detections is x: expected at least 1"),
        (lambda: EnsemblePredictor(["run"], agreement=[0.5]), r"agreement=\[0.5\]: expected an IoU"),
        (lambda: layer_decay_params(torch.nn.Linear(1, 1), decay_rate="x"), "decay_rate=x: expected a number"),
    ],
)
def test_wrong_types_are_one_line(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
