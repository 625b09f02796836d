"""Optimizer steps with precision, accumulation, clipping and a guard against plain torch; and early stops."""

import copy

import pytest
import torch
from detectron2.engine import HookBase, SimpleTrainer
from detectron2.engine.hooks import PeriodicWriter
from detectron2.utils.events import CommonMetricPrinter
from torch import nn

from maskrcnn_ext import InputError
from maskrcnn_ext.engine.train_loop import Trainer


class Regression(nn.Module):
    """Returns two losses, each a mean over the batch."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, batch):
        error = self.layers(torch.stack([sample["x"] for sample in batch])).squeeze(1)
        error = error - torch.stack([sample["y"] for sample in batch])
        return {"loss_square": error.square().mean(), "loss_abs": error.abs().mean()}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Regression()


def batches(size, count, seed=1):
    generator = torch.Generator().manual_seed(seed)
    samples = [
        {"x": torch.randn(3, generator=generator), "y": torch.randn((), generator=generator)}
        for _ in range(size * count)
    ]
    return [samples[i : i + size] for i in range(0, len(samples), size)]


def trained(trainer_class, model, data, steps, *hooks, **options):
    model = copy.deepcopy(model)
    trainer = trainer_class(model, data, torch.optim.SGD(model.parameters(), 0.1, momentum=0.9), **options)
    trainer.register_hooks(list(hooks))
    trainer.train(0, steps)
    return trainer


def weights(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


class Losses(HookBase):
    def __init__(self):
        self.seen = []

    def after_step(self):
        self.seen.append({k: v[0] for k, v in self.trainer.storage.latest().items() if "loss" in k})


def test_without_settings_it_is_detectron2s_trainer(model):
    stock, ours = Losses(), Losses()
    expected = weights(trained(SimpleTrainer, model, batches(4, 6), 6, stock))
    assert torch.equal(weights(trained(Trainer, model, batches(4, 6), 6, ours)), expected)
    assert ours.seen == stock.seen


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulated_gradients_are_those_of_the_large_batch(model, parts):
    large, small = Losses(), Losses()
    expected = weights(trained(Trainer, model, batches(8, 5), 5, large))
    found = weights(trained(Trainer, model, batches(8 // parts, 5 * parts), 5, small, accumulate=parts))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    for a, b in zip(large.seen, small.seen, strict=True):
        assert a == pytest.approx(b, abs=1e-5)


def test_gradients_are_clipped_together(model):
    limit = 0.01
    trainer = trained(Trainer, model, batches(4, 1), 1, clip_grad=limit)
    gradient = torch.cat([p.grad.flatten() for p in trainer.model.parameters()])
    assert gradient.norm().item() == pytest.approx(limit, rel=1e-4)
    free = trained(Trainer, model, batches(4, 1), 1)
    whole = torch.cat([p.grad.flatten() for p in free.model.parameters()])
    assert whole.norm() > limit
    torch.testing.assert_close(gradient / gradient.norm(), whole / whole.norm())


def test_bfloat16_trains_nearly_as_float32(model):
    exact, rounded = Losses(), Losses()
    trained(Trainer, model, batches(8, 10), 10, exact)
    trainer = trained(Trainer, model, batches(8, 10), 10, rounded, amp=torch.bfloat16)
    assert next(trainer.model.parameters()).dtype == torch.float32
    for a, b in zip(exact.seen, rounded.seen, strict=True):
        assert a["total_loss"] == pytest.approx(b["total_loss"], rel=0.05)
    assert exact.seen != rounded.seen


def test_float16_scales_its_gradients_and_keeps_the_scale(model):
    trainer = trained(Trainer, model, batches(4, 3), 3, amp=torch.float16)
    state = trainer.state_dict()
    assert state["grad_scaler"]["scale"] > 1
    again = Trainer(model, batches(4, 3), torch.optim.SGD(model.parameters(), 0.1, momentum=0.9), amp=torch.float16)
    again.load_state_dict({**state, "grad_scaler": {**state["grad_scaler"], "scale": 8.0}})
    assert again.grad_scaler.get_scale() == 8.0


class Stops(HookBase):
    def __init__(self, iteration):
        self._iteration = iteration
        self.ended_at = None

    def after_step(self):
        if self.trainer.iter == self._iteration:
            self.trainer.stop("enough")

    def after_train(self):
        self.ended_at = self.trainer.iter


def test_a_stopped_run_starts_no_further_iteration(model):
    losses, stops = Losses(), Stops(2)
    lines = PeriodicWriter([CommonMetricPrinter(6)], period=1)
    trainer = trained(Trainer, model, batches(4, 6), 6, losses, stops, lines)
    assert (len(losses.seen), trainer.stop_reason, trainer.iter) == (3, "enough", 2)
    assert stops.ended_at == 3, "what hooks write at the end is of no iteration that was written"
    assert trained(Trainer, model, batches(4, 6), 6, Stops(None)).iter == 6, (
        "one that ends by itself has the last iteration behind it"
    )


class Refuses:
    """A guard that refuses the given iterations."""

    def __init__(self, *, forward=(), step=()):
        self._forward, self._step = forward, step
        self.batches = []

    def allows_backward(self, trainer, _):
        self.batches.append(trainer.batch)
        return trainer.iter not in self._forward

    def allows_step(self, trainer, losses):
        assert set(losses) == {"loss_square", "loss_abs"}
        return trainer.iter not in self._step


@pytest.mark.parametrize("refusal", [{"forward": (1,)}, {"step": (1,)}])
def test_a_step_that_the_guard_refuses_is_skipped(model, refusal):
    data = batches(4, 3)
    guard = Refuses(**refusal)
    found = weights(trained(Trainer, model, data, 3, guard=guard))
    assert guard.batches == data
    assert torch.equal(found, weights(trained(Trainer, model, [data[0], data[2]], 2)))


class Broken(Regression):
    def forward(self, _):
        raise ValueError("no such thing")


def test_a_known_error_is_explained(model, caplog):
    with pytest.raises(InputError, match=r"^explained: no such thing$"):
        trained(Trainer, Broken(), batches(4, 1), 1, explain_error=lambda error: InputError(f"explained: {error}"))
    assert "Traceback" not in caplog.text
    with pytest.raises(ValueError, match="no such thing"):
        trained(Trainer, Broken(), batches(4, 1), 1)
