"""The diagnosis of a diverged iteration leaves the model alone and finds the first non-finite output."""

from contextlib import nullcontext

import pytest
import torch
from detectron2.structures import Boxes, Instances
from torch import nn

from maskrcnn_ext.engine.guard.diagnosis import (
    DivergedIteration,
    RerunResult,
    diagnose_iteration,
    find_input_faults,
    find_tensors,
    rerun_batch,
)
from tests.helpers.toy_training import Toy, random_states, same_states, same_weights, snapshot, toy_samples


def rerun(model, batch, **options):
    return rerun_batch(model, batch, random_state=None, autocast=nullcontext, **options)


def test_a_rerun_has_the_losses_of_the_model_and_changes_nothing():
    model, batch = Toy().train(), toy_samples(4)
    weights, before = snapshot(model), random_states()
    result = rerun(model, batch, gradients=True)
    assert same_weights(weights, snapshot(model))
    assert same_states(before, random_states())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not result.is_faulty
    assert result.losses == {name: value.item() for name, value in model(batch).items()}


def test_the_first_non_finite_output_is_named():
    model, batch = Toy().train(), toy_samples(4)
    with torch.no_grad():
        model.layer.weight[0, 1] = torch.nan
    first = rerun(model, batch).first
    assert (first.module, first.bad, first.total, first.inherited) == ("layer (Linear)", 4, 4, False)
    batch[0]["x"] = torch.full((3,), torch.inf)
    assert str(rerun(model, batch).first).startswith("norm (BatchNorm1d) (12 of 12 values, like its input)")


def test_a_model_that_raises_is_part_of_the_diagnosis():
    class Raises(Toy):
        def forward(self, _):
            raise FloatingPointError("Predicted boxes contain NaN.\nmore")

    assert rerun(Raises(), toy_samples(2)).error == "FloatingPointError: Predicted boxes contain NaN."


def test_gradients_that_are_not_finite():
    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, _):
            return self.weight.abs().sqrt().sum()

    assert not rerun(Root(), []).is_faulty
    assert rerun(Root(), [], gradients=True).bad_gradients


@pytest.mark.parametrize(("count", "sizes"), [(1, [1]), (3, [3, 1, 1, 1])])
def test_the_batch_and_every_image_are_run_once(count, sizes):
    ran = []

    class Counts(nn.Linear):
        def forward(self, batch):
            ran.append(len(batch))
            return {"loss": super().forward(torch.stack([sample["x"] for sample in batch])).mean()}

    model = Counts(3, 1)
    diverged = diagnose_iteration(
        model,
        torch.optim.SGD(model.parameters(), lr=0.5),
        toy_samples(count),
        iteration=7,
        losses={"loss": torch.tensor(torch.nan)},
        error="",
        random_state=None,
        autocast=nullcontext,
        history=[],
    )
    assert ran == sizes
    assert len(diverged.alone) == len(sizes) - 1
    assert diverged.rates == [0.5]
    assert diverged.suspects == []


@pytest.mark.parametrize(
    ("box", "fault"),
    [
        ([1, 1, 5, 5], None),
        ([1, 1, 1, 5], "box 0 (1, 1, 1, 5) has no area"),
        ([torch.nan, 1, 1, 5], "box 0 (nan, 1, 1, 5) is not finite"),
        ([31, 1, 40, 5], "box 0 (31, 1, 40, 5) is outside the image of 30 x 20"),
    ],
)
def test_faults_of_boxes(box, fault):
    instances = Instances((20, 30), gt_boxes=Boxes(torch.tensor([box], dtype=torch.float)))
    assert find_input_faults({"instances": instances}, None) == ([fault] if fault else [])


def test_faults_of_classes_and_pixels():
    instances = Instances((20, 30), gt_classes=torch.tensor([0, 3, -1]))
    sample = {"image": torch.full((3, 1, 1), torch.inf), "instances": instances}
    assert find_input_faults(sample, 3) == [
        "3 of 3 pixel values are not finite",
        "classes -1, 3, but the model has 0 to 2",
    ]
    assert find_input_faults({}, 3) == []


def test_tensors_are_found_in_structures():
    instances = Instances((2, 2), gt_boxes=Boxes(torch.zeros(1, 4)), scores=torch.zeros(1))
    assert [path for path, _ in find_tensors([{"a": instances}, (torch.zeros(1),), 5])] == [
        "[0]['a'].gt_boxes",
        "[0]['a'].scores",
        "[1][0]",
    ]


def test_suspects_are_faulty_images_or_those_that_diverge_alone():
    def diverged(faults, alone):
        inputs = [{"image_id": index} for index in range(len(faults))]
        return DivergedIteration(
            0, {"loss": torch.nan}, "", [], inputs, faults, RerunResult(), [RerunResult(error=text) for text in alone]
        )

    assert diverged([[], ["no area"]], ["", ""]).suspects == [1]
    assert diverged([[], []], ["x", ""]).suspects == [0]
    assert diverged([[], []], ["x", "x"]).suspects == []
    summary = diverged([["a"]] * 5, []).summary()
    assert summary.endswith("image 2 (no file name): a and 2 more")
    assert summary.startswith("training diverged in iteration 0: loss is nan; because of image 0 (no file name): a, ")
