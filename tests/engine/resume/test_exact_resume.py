"""A run that is killed and resumed has the losses and weights of an unbroken run, bit for bit."""

import json
import os
import subprocess
import sys

import pytest
import torch

from tests.conftest import ROOT
from tests.helpers.small_run import small_run, spec_of

SCRIPT = ROOT / "scripts/train_net.py"
KILLER = """
import json, os, signal
from detectron2.engine import HookBase
from detectron2.utils import comm
class Write(HookBase):
    '''Writes the losses of every iteration, which metrics.json has as medians.'''
    def __init__(self, folder):
        self._file = os.path.join(folder, "losses.json")
    def after_step(self):
        if comm.is_main_process():
            losses = {k: v for k, (v, _) in self.trainer.storage.latest().items() if "loss" in k}
            with open(self._file, "a") as stream:
                stream.write(json.dumps([self.trainer.iter, losses]) + "\\n")
class Kill(HookBase):
    '''Kills the process, as the kernel does, in the first run.'''
    def before_step(self):
        if self.trainer.iter == 6 and self.trainer.start_iter == 0:
            os.kill(os.getpid(), signal.SIGKILL)
"""

KILL = ", {_target_: killer.Kill}"


@pytest.fixture
def train(shapes, tmp_path):
    (tmp_path / "killer.py").write_text(KILLER)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ['PYTHONPATH']}"}

    def run(name, *arguments, kill=False, **overrides):
        keys = {
            "train.device": "cpu",
            "train.max_iter": 8,
            "train.eval_period": 4,  # draws random numbers right after the checkpoint
            "train.checkpointer.period": 4,
            "train.hooks": f"[{{_target_: killer.Write, folder: {tmp_path / name}}}{KILL if kill else ''}]",
            **overrides,
        }
        command = [sys.executable, "-W", "ignore", SCRIPT, "--config-file", "domains/shapes.py", *arguments]
        command += small_run(spec_of(shapes), tmp_path / name, **keys)
        return subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, timeout=300)

    return run


def losses(folder):
    """Returns all losses of every iteration; of an iteration that ran twice, the later ones."""
    return dict(json.loads(line) for line in (folder / "losses.json").read_text().splitlines())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "overrides"),
    [
        # Besides the random state of the mapper: the state of EMA, Best and EarlyStopping.
        (1, {"train.ema.decay": 0.9, "train.best.metric": "bbox/AP", "train.early_stopping.metric": "segm/AP"}),
        (1, {"dataloader.train.num_workers": 2}),
        (2, {}),
    ],
    ids=["no workers", "two workers", "two ranks"],
)
def test_killed_and_resumed(train, tmp_path, processes, overrides):
    ranks = ["--num-gpus", processes]
    unbroken = train("unbroken", *ranks, **overrides)
    assert unbroken.returncode == 0, unbroken.stderr[-3000:]
    killed = train("killed", *ranks, kill=True, **overrides)
    assert killed.returncode != 0
    assert (tmp_path / "killed/last_checkpoint").read_text() == "model_0000003.pth"
    assert not (tmp_path / "killed/model_final.pth").exists()
    resumed = train("killed", *ranks, "--resume", **overrides)
    assert resumed.returncode == 0, resumed.stderr[-3000:]

    assert len(losses(tmp_path / "killed")) == 8
    assert losses(tmp_path / "killed") == losses(tmp_path / "unbroken")
    ours, theirs = (
        torch.load(tmp_path / name / "model_final.pth", weights_only=True) for name in ("killed", "unbroken")
    )
    assert ours["model"].keys() == theirs["model"].keys()
    assert all(torch.equal(ours["model"][key], theirs["model"][key]) for key in theirs["model"])
    states = [checkpoint["trainer"]["hooks"] for checkpoint in (ours, theirs)]
    assert set(states[0]) == set(states[1])
    for name in ("Best", "EarlyStopping"):
        assert states[0].get(name) == states[1].get(name)
    if "EMA" in states[1]:
        averages = [state["EMA"]["average"] for state in states]
        assert all(torch.equal(averages[0][key], averages[1][key]) for key in averages[1])


@pytest.mark.slow
def test_a_run_without_a_seed_keeps_its_samplers(train, tmp_path):
    killed = train("killed", kill=True, **{"train.seed": -1})
    assert killed.returncode != 0
    before = losses(tmp_path / "killed")
    resumed = train("killed", "--resume", **{"train.seed": -1})
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    after = losses(tmp_path / "killed")
    assert [after[i] for i in (4, 5)] == [before[i] for i in (4, 5)], "iterations that ran twice are the same"
