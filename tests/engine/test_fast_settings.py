"""The fast settings of docs/training.md: a fused optimizer in this trainer learns like the stock settings."""

import json
import statistics

import pytest
import torch

from maskrcnn_ext.engine.main import main
from maskrcnn_ext.engine.train_loop import Trainer
from maskrcnn_ext.ops import winograd
from maskrcnn_ext.ops.native import loads
from tests.helpers.small_run import small_run, spec_of
from tests.helpers.toy_training import Toy, toy_samples

OPTIMIZERS = [(torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}), (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.05})]
FAST = {
    "train.channels_last": "true",
    "train.winograd": str(loads(winograd.library)).lower(),  # where there was a compiler
    "optimizer.fused": "true",
    "model.proposal_generator._target_": "maskrcnn_ext.FastRPN",
    "model.roi_heads.box_pooler._target_": "maskrcnn_ext.FastROIPooler",
    "model.roi_heads.mask_pooler._target_": "maskrcnn_ext.FastROIPooler",
}


def trainer(kind, options, first=0, **more):
    torch.manual_seed(0)
    model = Toy()
    batches = [toy_samples(4, seed) for seed in range(first, 12)]
    return Trainer(model, batches, kind(model.parameters(), **options), **more)


def parameters(trainer):
    return torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])


@pytest.mark.parametrize(("kind", "options"), OPTIMIZERS)
@pytest.mark.parametrize(
    "more", [{}, {"clip_grad": 0.5}, {"amp": torch.float16}, {"amp": torch.float16, "clip_grad": 0.5}]
)
def test_a_fused_optimizer_takes_the_same_steps(kind, options, more):
    plain, fused = trainer(kind, options, **more), trainer(kind, {**options, "fused": True}, **more)
    for one in (plain, fused):
        one.train(0, 12)
    torch.testing.assert_close(parameters(fused), parameters(plain), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("kind", "options"), OPTIMIZERS)
def test_a_fused_optimizer_skips_steps_with_non_finite_gradients(kind, options):
    one = trainer(kind, {**options, "fused": True}, amp=torch.float16)
    one.grad_scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)  # float16 overflows
    before = parameters(one).clone()
    one.train(0, 1)
    assert torch.equal(parameters(one), before)
    assert one.grad_scaler.get_scale() == 2.0**39


@pytest.mark.parametrize(("kind", "options"), OPTIMIZERS)
@pytest.mark.parametrize("saved_fused", [True, False])
def test_a_fused_optimizer_resumes_from_a_checkpoint(kind, options, saved_fused):
    whole = trainer(kind, {**options, "fused": saved_fused})
    whole.train(0, 12)
    first = trainer(kind, {**options, "fused": saved_fused})
    first.train(0, 6)
    again = trainer(kind, {**options, "fused": True}, first=6)
    again.model.load_state_dict(first.model.state_dict())
    again.load_state_dict({**first.state_dict(), "hooks": {}})
    assert again.optimizer.param_groups[0]["fused"] is saved_fused, "the checkpoint's choice stays"
    again.train(6, 12)
    assert torch.equal(parameters(again), parameters(whole))


@pytest.mark.slow
def test_the_script_trains_and_resumes_with_the_fast_settings(shapes, tmp_path):
    def run(iterations, *arguments, **more):
        keys = {**FAST, "train.max_iter": iterations, "train.checkpointer.period": 2, "optimizer.lr": 1e-4, **more}
        overrides = small_run(spec_of(shapes), tmp_path, **keys)
        assert main(["--config-file", "domains/shapes.py", *arguments, *overrides]) == 0

    run(2)
    run(4, "--resume")
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    losses = {line["iteration"]: line["total_loss"] for line in lines if "total_loss" in line}
    assert list(losses) == [0, 1, 2, 3], losses
    groups = torch.load(tmp_path / "model_final.pth", weights_only=True)["trainer"]["optimizer"]["param_groups"]
    assert all(group["fused"] for group in groups)


@pytest.mark.slow
def test_the_loss_curves_differ_as_those_of_two_seeds(tmp_path_factory, tmp_path, capsys):
    """Compares the mean loss of the last 20 of 40 iterations, with three seeds each."""
    from maskrcnn_ext.data.tools.shapes import make_shapes

    spec = spec_of(make_shapes(tmp_path_factory.mktemp("many"), num_images=32, size=96))
    curves = {}
    for name, more in (("stock", {}), ("fast", FAST)):
        for seed in range(3):
            folder = tmp_path / f"{name}{seed}"
            keys = {"train.max_iter": 40, "train.seed": seed, "train.checkpointer.period": 1000, **more}
            assert main(["--config-file", "domains/shapes.py", *small_run(spec, folder, **keys)]) == 0
            lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
            curves.setdefault(name, []).append([line["total_loss"] for line in lines if "total_loss" in line])
    with capsys.disabled():
        print("\n| iterations | stock, 3 seeds | fast, 3 seeds |\n| --- | --- | --- |")
        for start in range(0, 40, 10):
            cells = [
                " ".join(f"{statistics.mean(curve[start : start + 10]):.3f}" for curve in curves[name])
                for name in ("stock", "fast")
            ]
            print(f"| {start} to {start + 9} | {' | '.join(cells)} |")
    last = {name: [statistics.mean(curve[-20:]) for curve in of_name] for name, of_name in curves.items()}
    spread = max(statistics.stdev(values) for values in last.values())
    difference = statistics.mean(last["fast"]) - statistics.mean(last["stock"])
    assert abs(difference) < 2 * spread
    first = {name: statistics.mean(curve[0] for curve in of_name) for name, of_name in curves.items()}
    assert first["fast"] == pytest.approx(first["stock"], rel=1e-3), "the first step is that of the same numbers"
    assert all(value < 0.8 * first[name] for name, values in last.items() for value in values), "they learn"
