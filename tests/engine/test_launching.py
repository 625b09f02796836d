"""Launching: ranks assigned by torchrun and srun, spawned processes, and flags that do not fit."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from maskrcnn_ext import InputError
from maskrcnn_ext.engine.launching import RankInfo, launch, read_rank_info
from maskrcnn_ext.engine.main import parse_args
from tests.conftest import ROOT
from tests.helpers.small_run import small_run, spec_of

SCRIPT = ROOT / "scripts/train_net.py"
TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "host0",
    "MASTER_PORT": "29500",
}
SRUN = {
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "5",
    "SLURM_NTASKS": "8",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
    "SLURM_JOB_ID": "1234",
    "SLURM_STEP_NODELIST": "node7,node8",
}


def test_rank_info_of_torchrun_and_srun():
    assert read_rank_info(TORCHRUN) == RankInfo(5, 8, 1, 4, "host0", 29500)
    assert read_rank_info(SRUN) == RankInfo(5, 8, 1, 4, "node7", 21234)
    assert read_rank_info({**SRUN, "MASTER_ADDR": "here", "MASTER_PORT": "1"}) == RankInfo(5, 8, 1, 4, "here", 1)


def test_no_rank_info_outside_torchrun_and_srun():
    assert read_rank_info({}) is None
    assert read_rank_info({"RANK": "0"}) is None
    batch_script = {key: value for key, value in SRUN.items() if key != "SLURM_STEP_ID"}
    assert read_rank_info(batch_script) is None
    assert read_rank_info({**SRUN, "SLURM_NTASKS": "1"}) is None


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (
            {"TORCHELASTIC_RUN_ID": "x", **TORCHRUN, "RANK": ""},
            "torchrun has started this process, but RANK is not set",
        ),
        ({**SRUN, "SLURM_LOCALID": ""}, "srun has started this process, but SLURM_LOCALID is not set"),
        ({**SRUN, "SLURM_STEP_TASKS_PER_NODE": "3,5"}, "equally many on each"),
        ({**SRUN, "SLURM_STEP_NODELIST": "node[7-8]", "PATH": ""}, r"first of the hosts node\[7-8\] .*set MASTER_ADDR"),
    ],
)
def test_missing_variables_are_one_line(environment, message, monkeypatch):
    monkeypatch.setenv("PATH", environment.get("PATH", ""))
    with pytest.raises(InputError, match=message):
        read_rank_info(environment)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num-machines", "2"], "--num-machines 2 needs --dist-url tcp://HOST:PORT"),
        (
            ["--num-machines", "2", "--machine-rank", "2", "--dist-url", "tcp://a:1"],
            "--machine-rank 2: expected 0 to 1",
        ),
    ],
)
def test_flags_that_do_not_fit_are_one_line(flags, message):
    with pytest.raises(InputError, match=message):
        launch(lambda _: 0, parse_args(["--config-file", "a.py", *flags]))


def overrides(spec, output_dir, **more):
    hooks = {"train.hooks": "[{_target_: weights_of_ranks.WriteHash}]"}
    return ["--config-file", "domains/shapes.py", *small_run(spec, output_dir, **{**hooks, **more})]


@pytest.fixture
def spec(shapes):
    return spec_of(shapes)


@pytest.fixture
def environment(tmp_path):
    """Adds a hook that writes a hash of each rank's parameters; BatchNorm's running statistics differ between ranks."""
    (tmp_path / "weights_of_ranks.py").write_text(
        """
import hashlib
from pathlib import Path
from detectron2.engine import HookBase
from detectron2.utils import comm
class WriteHash(HookBase):
    def after_train(self):
        parameters = b"".join(p.detach().numpy().tobytes() for p in self.trainer.model.parameters())
        Path(__file__).with_name(f"hash_{comm.get_rank()}").write_text(hashlib.sha256(parameters).hexdigest())
"""
    )
    return {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ['PYTHONPATH']}"}


def check_ranks(folder, count=2):
    hashes = [(folder / f"hash_{rank}").read_text() for rank in range(count)]
    assert len(set(hashes)) == 1, "all ranks have the same weights"
    lines = [json.loads(line) for line in (folder / "out/metrics.json").read_text().splitlines()]
    assert {line["iteration"] for line in lines if "total_loss" in line} == set(range(4))
    assert (folder / "out/model_final.pth").is_file()


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start(arguments, environment):
    command = [sys.executable, "-W", "ignore", *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(*processes):
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output[-3000:]
    return outputs


@pytest.mark.slow
def test_two_processes_without_a_gpu(spec, tmp_path, environment):
    arguments = overrides(spec, tmp_path / "out", **{"train.device": "cpu"})
    finish(start([SCRIPT, "--num-gpus", "2", *arguments], environment))
    check_ranks(tmp_path)
    checkpoint = f"train.init_checkpoint='{tmp_path / 'out/model_final.pth'}'"
    finish(start([SCRIPT, "--num-gpus", "2", "--eval-only", *arguments, checkpoint], environment))
    assert (tmp_path / "out/inference/coco_instances_results.json").is_file()


@pytest.mark.slow
def test_the_workers_of_all_processes_share_an_image_cache(spec, tmp_path, environment):
    (tmp_path / "held_images.py").write_text(
        """
import os
from pathlib import Path
from detectron2.engine import HookBase
from detectron2.utils import comm
class Count(HookBase):
    def after_train(self):
        held = Path(f"/dev/shm/maskrcnn_ext_images-{os.getuid()}-{os.getppid()}")
        files = [path.suffix for path in held.glob("*")]
        Path(__file__).with_name(f"held_{comm.get_rank()}").write_text(f"{held} {files.count('.npy')}")
"""
    )
    environment["MASKRCNN_EXT_CACHE"] = str(tmp_path / "cache")
    losses = {}
    for kind in ("null", "ram", "disk"):
        keys = {  # two epochs of the eight images
            "train.max_iter": 8,
            "train.device": "cpu",
            "train.hooks": "[{_target_: held_images.Count}]",
            "dataloader.train.num_workers": 2,
            "dataloader.train.mapper.cache": kind,
        }
        finish(start([SCRIPT, "--num-gpus", "2", *overrides(spec, tmp_path / kind, **keys)], environment))
        lines = map(json.loads, (tmp_path / kind / "metrics.json").read_text().splitlines())
        losses[kind] = [line["total_loss"] for line in lines if "total_loss" in line]
        counts = [(tmp_path / f"held_{rank}").read_text().split() for rank in range(2)]
        assert counts[0] == counts[1], "the processes have one folder in memory"
        assert int(counts[0][1]) == (8 if kind == "ram" else 0)
        assert not Path(counts[0][0]).exists(), "it is removed at the end"
    assert len(losses["null"]) == 8
    assert losses["null"] == losses["ram"] == losses["disk"]
    kept = [path.suffix for path in (tmp_path / "cache/images").iterdir() if path.suffix or "partial" in path.name]
    assert kept == [".npy"] * 8


@pytest.mark.slow
def test_torchrun(spec, tmp_path, environment):
    flags = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", free_port()]
    (output,) = finish(start([*flags, SCRIPT, *overrides(spec, tmp_path / "out")], environment))
    check_ranks(tmp_path)
    assert output.count("\nNext:") == 1, "one process prints what follows"


@pytest.mark.slow
def test_torchrun_restarts_a_killed_process(spec, tmp_path, environment):
    (tmp_path / "killer.py").write_text(
        """
import os, signal
from detectron2.engine import HookBase
from detectron2.utils import comm
class KillOnce(HookBase):
    def before_step(self):
        if comm.get_rank() == 1 and self.trainer.start_iter == 0 and self.trainer.iter == 3:
            os.kill(os.getpid(), signal.SIGKILL)
"""
    )
    hooks = "[{_target_: weights_of_ranks.WriteHash}, {_target_: killer.KillOnce}]"
    keys = {"train.hooks": hooks, "train.checkpointer.period": 2}
    flags = [
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--max-restarts",
        "1",
        "--master-port",
        free_port(),
    ]
    finish(start([*flags, SCRIPT, "--resume", *overrides(spec, tmp_path / "out", **keys)], environment))
    assert "Starting training from iteration 2" in (tmp_path / "out/log.txt").read_text()
    check_ranks(tmp_path)


@pytest.mark.slow
def test_srun(spec, tmp_path, environment):
    variables = {**SRUN, "SLURM_NTASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_STEP_NODELIST": "127.0.0.1"}
    processes = []
    port = str(free_port())
    for rank in ("0", "1"):
        task = {**environment, **variables, "SLURM_PROCID": rank, "SLURM_LOCALID": rank, "MASTER_PORT": port}
        processes.append(start([SCRIPT, *overrides(spec, tmp_path / "out")], task))
    finish(*processes)
    check_ranks(tmp_path)


@pytest.mark.slow
def test_two_machines(spec, tmp_path, environment):
    url = f"tcp://127.0.0.1:{free_port()}"
    machines = [
        start(
            [
                SCRIPT,
                "--num-machines",
                2,
                "--machine-rank",
                rank,
                "--dist-url",
                url,
                *overrides(spec, tmp_path / "out"),
            ],
            environment,
        )
        for rank in range(2)
    ]
    finish(*machines)
    check_ranks(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_a_run_with_a_checkpoint(spec, tmp_path, environment, processes, number):
    if processes == 2 and number == signal.SIGUSR1:
        pytest.skip("the same path as SIGTERM's")
    out = tmp_path / "out"
    arguments = overrides(spec, out, **{"train.max_iter": 100_000, "train.device": "cpu"})
    process = start([SCRIPT, "--num-gpus", processes, *arguments], environment)
    try:
        while process.poll() is None and not iterations(out):
            time.sleep(0.1)
        process.send_signal(number)
        output = process.communicate(timeout=120)[0]
    finally:
        process.kill()
    assert process.returncode == 75, output[-3000:]
    (checkpoint,) = out.glob("model_*.pth")
    saved = torch.load(checkpoint, weights_only=True)["iteration"]
    assert re.fullmatch(rf"model_{saved:07d}\.pth", checkpoint.name)
    assert saved - max(iterations(out)) <= 1
    assert json.loads((out / "manifest.json").read_text())["status"] == "preempted"


def iterations(folder: Path) -> list[int]:
    file = folder / "metrics.json"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    return [line["iteration"] for line in lines if "total_loss" in line]
