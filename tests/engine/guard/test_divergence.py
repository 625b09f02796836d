"""The divergence guard names planted faults, stops, skips or rolls back, and changes nothing in a healthy run."""

import contextlib
import copy
import json
import math
import re
from types import SimpleNamespace

import pytest
import torch
from detectron2.config import instantiate
from detectron2.engine import SimpleTrainer, hooks
from detectron2.solver import LRMultiplier, WarmupParamScheduler
from detectron2.structures import Boxes
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventStorage
from fvcore.common.param_scheduler import ConstantParamScheduler, MultiStepParamScheduler
from PIL import Image
from torch import nn

from maskrcnn_ext import InputError, get_config
from maskrcnn_ext.engine.determinism import weights_hash
from maskrcnn_ext.engine.guard.divergence import Diverged, DivergenceGuard, halve_learning_rates
from maskrcnn_ext.engine.guard.report import load_batch
from tests.conftest import ROOT


class Trainer(SimpleTrainer):
    """Calls the guard where the training loop does."""

    def __init__(self, model, data, optimizer, guard=None):
        super().__init__(model, data, optimizer)
        self.guard = guard
        self.batch = []
        self.seen = []
        self.register_hooks(
            [guard, hooks.LRScheduler(scheduler=MultiStepParamScheduler([1.0, 1.0], milestones=[1, 2]))]
        )

    def run_step(self):
        self.batch = next(self._data_loader_iter)
        losses, failure = {}, None
        try:
            losses = self.model(self.batch)
        except FloatingPointError as error:
            failure = error
        if self.guard and not self.guard.allows_backward(self, failure):
            return
        self.optimizer.zero_grad()
        sum(losses.values()).backward()
        if self.guard and not self.guard.allows_step(self, losses):
            return
        self._write_metrics(losses, 0.0)
        self.seen.append([value.item() for value in losses.values()])
        self.optimizer.step()


class Toy(nn.Module):
    """Has running statistics, draws random numbers in every pass, and has a loss that can become non-finite."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(2)
        self.body = nn.Linear(2, 2)
        self.head = nn.Linear(2, 1)

    def forward(self, batch):
        x = torch.stack([sample["image"] for sample in batch])
        if len(batch) > 1:
            x = self.norm(x)
        y = self.head(self.body(x + 0.01 * torch.rand_like(x)))
        losses = {"loss_a": y.square().mean()}
        if any(sample.get("root") for sample in batch):
            losses["loss_b"] = y.abs().sqrt().mean()
        return losses


def toy_data(bad=(), value=float("inf")):
    generator = torch.Generator().manual_seed(0)
    for iteration in range(1000):
        batch = [
            {
                "image": torch.randn(2, generator=generator),
                "image_id": 10 * iteration + k,
                "file_name": f"{iteration}_{k}.png",
            }
            for k in range(3)
        ]
        if iteration in bad:
            batch[1]["image"] = torch.tensor([value, 0.0])
        yield batch


def toy_run(tmp_path, *, on_fault="stop", iterations=6, data=None, lr=0.1, guard=True, momentum=0.9):
    torch.manual_seed(0)
    model = Toy()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
    guard = DivergenceGuard(tmp_path, on_fault=on_fault) if guard else None
    trainer = Trainer(model, toy_data() if data is None else data, optimizer, guard)
    trainer.train(0, iterations)
    return trainer


def is_finite(model):
    return all(bool(value.isfinite().all()) for value in model.state_dict().values())


@pytest.mark.parametrize("on_fault", ["stop", "skip", "rollback"])
def test_without_a_fault_losses_and_weights_are_those_without_the_guard(tmp_path, on_fault):
    with_guard, without = toy_run(tmp_path, on_fault=on_fault), toy_run(tmp_path, guard=False)
    assert with_guard.seen == without.seen
    assert len(without.seen) == 6
    assert weights_hash(with_guard.model) == weights_hash(without.model)
    assert not (tmp_path / "divergence").exists()
    assert with_guard.guard.state_dict() == {}


def test_stop_names_the_image_and_writes_the_report(tmp_path):
    with pytest.raises(Diverged) as caught:
        toy_run(tmp_path, data=toy_data(bad=[3]))
    message = str(caught.value)
    folder = tmp_path / "divergence/iter_0000003"
    assert isinstance(caught.value, InputError)
    assert "\n" not in message
    assert "iteration 3: loss_a is nan" in message
    assert "image 31 (3_1.png): 1 of 2 pixel values are not finite" in message
    assert "body (Linear)" in message, "the image alone is not normalised by the batch"
    assert str(folder / "report.txt") in message
    report = (folder / "report.txt").read_text()
    assert "learning rate: 0.1" in report
    assert "modules with gradients that are not finite: norm (4 values), body" in report
    assert "modules with weights that are not finite: none" in report
    batch = load_batch(folder / "batch.pth")
    assert [sample["image_id"] for sample in batch] == [30, 31, 32]
    assert batch[1]["image"].tolist() == [float("inf"), 0.0]


def test_finite_losses_with_gradients_that_are_not(tmp_path):
    """sqrt(|0|) is 0 and its gradient is not a number."""

    def data():
        for iteration, batch in enumerate(toy_data()):
            batch[2]["root"] = iteration == 2
            yield batch

    torch.manual_seed(0)
    model = Toy()
    nn.init.zeros_(model.head.weight)
    nn.init.zeros_(model.head.bias)
    trainer = Trainer(model, data(), torch.optim.SGD(model.parameters(), lr=0.1), DivergenceGuard(tmp_path))
    with pytest.raises(Diverged, match=r"iteration 2: the gradients are not finite.*because of image 22 \(2_2.png\);"):
        trainer.train(0, 5)


def test_gradients_are_left_to_a_gradient_scaler(tmp_path):
    model = Toy()
    trainer = Trainer(model, toy_data(), torch.optim.SGD(model.parameters(), lr=0.1))
    guard = DivergenceGuard(tmp_path)
    trainer.iter = 0
    model.head.weight.grad = torch.full_like(model.head.weight, float("inf"))
    trainer.grad_scaler = object()
    assert guard.allows_step(trainer, {"loss": torch.tensor(1.0)})


def test_large_gradients_are_finite(tmp_path):
    """Their squares are not."""
    model = Toy()
    trainer = Trainer(model, toy_data(), torch.optim.SGD(model.parameters(), lr=0.1))
    model.head.weight.grad = torch.full_like(model.head.weight, 1e30)
    assert DivergenceGuard(tmp_path).allows_step(trainer, {"loss": torch.tensor(1.0)})


def test_skip_undoes_the_whole_iteration(tmp_path):
    trainer = toy_run(tmp_path, on_fault="skip", data=toy_data(bad=[0, 3]))
    assert is_finite(trainer.model), "neither weights nor running statistics hold the bad image"
    assert trainer.model.norm.num_batches_tracked == 4
    assert len(trainer.seen) == 4
    assert trainer.storage.latest()["divergence/skipped"] == (2, 3)
    assert trainer.guard.state_dict() == {"skipped": 2, "rollbacks": 0}

    def without_bad():
        return (batch for iteration, batch in enumerate(toy_data()) if iteration not in (0, 3))

    again = toy_run(tmp_path / "again", on_fault="skip", data=without_bad(), iterations=4)
    assert again.model.norm.running_mean.allclose(trainer.model.norm.running_mean, atol=1e-6)


def test_skip_gives_up_after_ten_in_a_row(tmp_path):
    with pytest.raises(Diverged, match="11 iterations in a row diverged"):
        toy_run(tmp_path, on_fault="skip", iterations=30, data=toy_data(bad=range(5, 30)))
    toy_run(tmp_path, on_fault="skip", iterations=30, data=toy_data(bad=set(range(30)) - {10, 20}))
    assert len(list((tmp_path / "divergence").iterdir())) >= 5


def test_the_number_of_reports_is_limited(tmp_path):
    toy_run(tmp_path, on_fault="skip", iterations=20, data=toy_data(bad=range(0, 20, 2)))
    assert len(list((tmp_path / "divergence").iterdir())) == 5


def test_rollback_restores_the_weights_and_halves_the_rate(tmp_path):
    trainer = toy_run(tmp_path, on_fault="rollback", iterations=5, data=toy_data(bad=[3]))
    assert is_finite(trainer.model)
    assert trainer.optimizer.param_groups[0]["lr"] == trainer.optimizer.param_groups[0]["initial_lr"] == 0.05
    assert trainer._hooks[1].scheduler.base_lrs == [0.05]
    assert trainer.guard.state_dict() == {"skipped": 0, "rollbacks": 1}

    # The state before the first step was restored: iteration 4 makes the same step at half the rate.
    torch.manual_seed(0)
    start, head = Toy().head.weight, trainer.model.head.weight
    assert torch.allclose(head, start - 0.05 * head.grad)
    state = trainer.optimizer.state[head]
    assert torch.equal(state["momentum_buffer"], head.grad), "the momentum started at zero"


def test_a_resumed_run_keeps_the_halved_rate(tmp_path):
    trainer = toy_run(tmp_path, on_fault="rollback", iterations=5, data=toy_data(bad=[3]))
    saved = trainer.state_dict()
    model = Toy()
    again = Trainer(
        model, toy_data(), torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), DivergenceGuard(tmp_path)
    )
    again.load_state_dict(saved)
    again.train(5, 7)
    assert again.optimizer.param_groups[0]["lr"] == 0.05
    assert again.guard.rollbacks == 1


def test_rollback_of_a_rate_a_thousand_times_too_high(tmp_path):
    with pytest.raises(Diverged):
        toy_run(tmp_path / "stop", iterations=40, lr=100.0)
    trainer = toy_run(tmp_path / "rollback", on_fault="rollback", iterations=40, lr=100.0)
    assert 1 <= trainer.guard.rollbacks <= 10
    assert is_finite(trainer.model)
    assert math.isfinite(trainer.seen[-1][0])


def test_rollback_has_its_limits(tmp_path):
    with pytest.raises(Diverged, match="the first iteration already diverged"):
        toy_run(tmp_path / "a", on_fault="rollback", data=toy_data(bad=[0]))
    with pytest.raises(Diverged, match="rolled back 10 times, and training diverged again"):
        toy_run(tmp_path / "b", on_fault="rollback", iterations=30, data=toy_data(bad=range(1, 30)))


def test_a_recent_snapshot_is_not_trusted(tmp_path):
    """After 100 iterations there are two snapshots: the newer may be of weights that were already diverging."""
    trainer = toy_run(tmp_path, on_fault="rollback", iterations=103, data=toy_data(bad=[102]), lr=1e-3)
    torch.manual_seed(0)
    assert torch.equal(trainer.model.head.weight, Toy().head.weight)


def test_other_actions_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"train.guard.on_fault=ignore: expected stop, skip, rollback"):
        DivergenceGuard(tmp_path, on_fault="ignore")


def test_the_rates_of_a_multiplier_are_halved_during_warm_up():
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    schedule = WarmupParamScheduler(ConstantParamScheduler(1.0), warmup_factor=0.0, warmup_length=0.5)
    scheduler = LRMultiplier(optimizer, schedule, max_iter=10)
    holder = SimpleNamespace(optimizer=optimizer, _hooks=[hooks.LRScheduler(optimizer, scheduler)])
    optimizer.step()
    scheduler.step()
    before = optimizer.param_groups[0]["lr"]
    halve_learning_rates(holder)
    assert optimizer.param_groups[0]["lr"] == before / 2
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(before)  # twice the share, half the rate


BAD_BOX = [20.0, 20.0, 20.0, 20.0]


@pytest.fixture
def mask_rcnn(shapes):
    """A small Mask R-CNN, and batches of two images for it."""
    seed_all_rng(0)
    cfg = get_config("domains/shapes.py")
    cfg.model.backbone.out_channels = 16
    cfg.model.roi_heads.box_head.fc_dims = [32]
    cfg.model.roi_heads.box_predictor.input_shape.channels = 32
    cfg.model.roi_heads.mask_head.conv_dims = [16, 16]
    cfg.model.roi_heads.batch_size_per_image = 16
    cfg.model.proposal_generator.update(pre_nms_topk=[100, 100], post_nms_topk=[50, 50])
    cfg.dataloader.train.dataset.names = f"coco:{shapes}@{shapes.parent / 'images'}"
    cfg.dataloader.train.update(total_batch_size=2, num_workers=0)
    cfg.dataloader.train.dataset.filter_empty = True
    # Iterated once only: Detectron2's grouped loader is empty the second time if the first iteration was interrupted.
    return instantiate(cfg.model), lambda: instantiate(cfg.dataloader.train)


def planted(make_loader, fault, iteration):
    for number, batch in enumerate(make_loader()):
        if number == iteration:
            victim = next(sample for sample in batch if len(sample["instances"]))
            if fault == "pixel":
                victim["image"] = victim["image"].float()
                victim["image"][1, 7, 9] = float("inf")
            elif fault == "box":
                boxes = victim["instances"].gt_boxes.tensor.clone()
                boxes[0] = torch.tensor(BAD_BOX)
                victim["instances"].gt_boxes = Boxes(boxes)
            batch[0]["planted"], batch[1]["planted"] = (sample is victim for sample in batch)
        yield batch


@pytest.mark.parametrize(
    ("fault", "module", "said"),
    [
        (
            "pixel",
            r"backbone\.bottom_up\.stem\.conv1\.norm \(BatchNorm2d\) \(147456 of 147456 values, like its input\)",
            "1 of 27648 pixel values are not finite",
        ),
        ("box", r"proposal_generator \(RPN\): output \[1\]\['loss_rpn_loc'\]", r"box 0 \(20, 20, 20, 20\) has no area"),
    ],
)
def test_planted_faults_are_named(tmp_path, mask_rcnn, fault, module, said):
    model, make_loader = mask_rcnn
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    trainer = Trainer(model, planted(make_loader, fault, 1), optimizer, DivergenceGuard(tmp_path))
    with pytest.raises(Diverged) as caught:
        trainer.train(0, 3)
    batch = load_batch(tmp_path / "divergence/iter_0000001/batch.pth")
    victim = next(sample for sample in batch if sample["planted"])
    assert re.search(f"first not finite: {module}", str(caught.value))
    assert re.search(f"because of image {victim['image_id']} .*: {said}; see ", str(caught.value))
    with Image.open(tmp_path / "divergence/iter_0000001/batch.png") as picture:
        assert picture.size == (960, 496), "two images of 476 x 476 side by side, each in a frame with a title"
        column = next(index for index, sample in enumerate(batch) if sample["planted"])
        corners = [picture.getpixel((480 * index, 495)) for index in (column, 1 - column)]
        assert corners == [(255, 40, 40), (40, 40, 40)], "the image at fault has a red frame"
    assert is_finite(nn.ParameterList(model.parameters()))
    losses = {}
    with contextlib.suppress(FloatingPointError), torch.no_grad(), EventStorage():
        losses = model(batch)
    assert not losses or not all(bool(value.isfinite()) for value in losses.values()), "the saved batch shows the fault"


def test_a_rate_a_thousand_times_too_high_blames_no_image_and_rollback_continues(tmp_path, mask_rcnn):
    model, make_loader = mask_rcnn
    start = copy.deepcopy(model.state_dict())

    def run(folder, on_fault):
        model.load_state_dict(start)
        seed_all_rng(0)
        guard = DivergenceGuard(folder, on_fault=on_fault)
        trainer = Trainer(model, make_loader(), torch.optim.SGD(model.parameters(), lr=20.0, momentum=0.9), guard)
        trainer.train(0, 8)
        return trainer

    with pytest.raises(Diverged, match="no image of the batch is at fault by itself"):
        run(tmp_path / "stop", "stop")
    trainer = run(tmp_path / "rollback", "rollback")
    assert trainer.guard.rollbacks >= 1
    assert is_finite(model)
    assert all(map(math.isfinite, trainer.seen[-1]))


TWO_PROCESSES = """
import json, sys
sys.path.insert(0, {folder!r})
import torch
import torch.distributed as dist
from tests.engine.guard.test_divergence import Diverged, DivergenceGuard, Toy, Trainer, toy_data
from torch.nn.parallel import DistributedDataParallel
from maskrcnn_ext.engine.determinism import weights_hash

class Raising(Toy):
    def forward(self, batch):
        if any(sample.get("raise") for sample in batch):
            raise FloatingPointError("Predicted boxes or scores contain Inf/NaN.")
        return super().forward(batch)

def data(rank):
    for iteration, batch in enumerate(toy_data(bad=[1] if rank else [])):
        batch[0]["raise"] = rank == 0 and iteration == 2
        yield batch

def work(rank, on_fault):
    dist.init_process_group("gloo", init_method="file://{store}" + on_fault, rank=rank, world_size=2)
    torch.manual_seed(0)
    model = DistributedDataParallel(Raising(), broadcast_buffers=False)
    guard = DivergenceGuard("{output}/" + on_fault, on_fault=on_fault)
    trainer = Trainer(model, data(rank), torch.optim.SGD(model.parameters(), lr=0.1), guard)
    said = "finished"
    try:
        trainer.train(0, 5)
    except Diverged as error:
        said = str(error).split(";")[0]
    row = [trainer.iter, guard.skipped, guard.rollbacks, bool(model.module.norm.running_mean.isfinite().all()),
           trainer.optimizer.param_groups[0]["lr"], model.module.body.weight.sum().item(), said]
    with open("{output}/" + on_fault + str(rank) + ".json", "w") as file:
        json.dump(row, file)
    dist.destroy_process_group()

if __name__ == "__main__":
    for on_fault in ("stop", "skip", "rollback"):
        torch.multiprocessing.spawn(work, (on_fault,), nprocs=2)
"""


@pytest.mark.slow
def test_processes_act_alike(tmp_path, run_python):
    """Process 1 has a bad image in iteration 1; in iteration 2 the model raises in process 0 only."""
    script = tmp_path / "two.py"
    script.write_text(TWO_PROCESSES.format(folder=str(ROOT), store=tmp_path / "store", output=tmp_path))
    done = run_python(script)
    assert done.returncode == 0, done.stderr[-3000:]
    expected = {"stop": [1, 0, 0, True, 0.1], "skip": [5, 2, 0, True, 0.1], "rollback": [5, 0, 2, True, 0.025]}
    for on_fault, counts in expected.items():
        first, second = (json.loads((tmp_path / f"{on_fault}{rank}.json").read_text()) for rank in (0, 1))
        assert first[:5] == second[:5] == counts
        assert first[5] == second[5], "the weights are the same"
    stopped = [json.loads((tmp_path / f"stop{rank}.json").read_text())[6] for rank in (0, 1)]
    assert stopped[0].endswith("iteration 1: the gradients, averaged over the processes, are not finite")
    assert stopped[1].endswith("iteration 1: loss_a is nan")
    folder = tmp_path / "skip/divergence"
    reports = ["report.txt", "report_rank1.txt"]
    assert [sorted(file.name for file in (folder / f"iter_000000{k}").glob("*.txt")) for k in (1, 2)] == [reports] * 2
    assert "image 11 (1_1.png)\n    1 of 2 pixel values" in (folder / "iter_0000001/report_rank1.txt").read_text()
    assert "Predicted boxes" in (folder / "iter_0000002/report.txt").read_text()
    assert "another process's model raised" in (folder / "iter_0000002/report_rank1.txt").read_text()
