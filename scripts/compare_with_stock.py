#!/usr/bin/env python3
"""Reproduces reported problems of lazyconfig_train_net.py with that script and with train_net.py, and prints a table of the results.

    python scripts/compare_with_stock.py --stock detectron2/tools/lazyconfig_train_net.py > docs/stock_and_ours.md

Every row runs both scripts as a user would, on generated images, on the CPU. It takes about ten minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

OURS = Path(__file__).with_name("train_net.py")


class Side:
    """One of the two scripts and its output folder."""

    def __init__(self, name: str, script: Path, folder: Path, data: str) -> None:
        self.name = name
        self.script = script
        self.folder = folder
        self._data = data
        folder.mkdir()
        self._runs = 0

    def command(self, output: str, *arguments: str, max_iter: int = 2) -> list[str]:
        """Returns the command line of a small run, with `arguments` at its end."""
        from maskrcnn_ext.config.zoo import config_path

        settings = {
            "dataloader.train.dataset.names": self._data,
            "dataloader.test.dataset.names": self._data,
            "dataloader.train.total_batch_size": 2,
            "dataloader.train.num_workers": 0,
            "dataloader.test.num_workers": 0,
            "model.backbone.out_channels": 32,
            "train.output_dir": self.folder / output,
            "train.max_iter": max_iter,
            "train.eval_period": 0,
            "train.log_period": 1,
            "train.seed": 3,
        }
        overrides = [f"{key}={value}" for key, value in settings.items()]
        return [
            *(sys.executable, "-W", "ignore", str(self.script)),
            *("--config-file", str(config_path("domains/shapes.py")), *overrides, *arguments),
        ]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs a command and waits for its end."""
        return subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=600)

    def losses(self, output: str) -> dict[int, float]:
        """Returns the total loss of every iteration. If an iteration ran twice, the later loss counts."""
        file = self.folder / output / "metrics.json"
        lines = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
        return {line["iteration"]: line["total_loss"] for line in lines if "total_loss" in line}


def environment() -> dict[str, str]:
    """Returns the environment of both scripts: two threads, and this package registered through Detectron2's hook."""
    return {**os.environ, "OMP_NUM_THREADS": "2", "DETECTRON2_ENV_MODULE": "maskrcnn_ext.env"}


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """Returns the exit status of a process and, if it failed, the last line of its output."""
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    message = f": {lines[-1][:230]}" if done.returncode and lines else ""
    return f"exit status {done.returncode}{message}"


def typo(side: Side) -> str:
    """F6: an override with a typo."""
    done = side.run(*side.command("typo", "train.max_itr=5"))
    return last_line(done) if done.returncode else f"accepted: {len(side.losses('typo'))} iterations were run, not 5"


def saved_config(side: Side) -> str:
    """F7: a saved config loads again."""
    saves = (
        "from maskrcnn_ext.config.config_yaml import save_config as save"
        if side.script == OURS
        else "from detectron2.config import LazyConfig; save = LazyConfig.save"
    )
    code = f"""
import sys
from detectron2 import model_zoo
from detectron2.config import LazyConfig
{saves}
cfg = model_zoo.get_config("new_baselines/mask_rcnn_R_50_FPN_100ep_LSJ.py")
save(cfg, sys.argv[1])
again = LazyConfig.load(sys.argv[1])
print("loads again, with", len(again), "sections")
"""
    done = side.run(sys.executable, "-W", "ignore", "-c", code, str(side.folder / "saved.yaml"))
    return done.stdout.strip().splitlines()[-1] if done.returncode == 0 else last_line(done)


def best_after_resume(side: Side) -> str:
    """F8: the best checkpoint after a resume."""
    hook = (
        'Best(1, Saver(), metric="segm/AP")' if side.script == OURS else 'hooks.BestCheckpointer(1, Saver(), "segm/AP")'
    )
    code = f"""
from detectron2.engine import TrainerBase, hooks
from detectron2.utils.events import get_event_storage
from maskrcnn_ext.engine.hooks.model_selection import Best
saved = []
class Saver:
    def save(self, name, **extra): saved.append(extra["iteration"])
class Scores(TrainerBase):
    def run_step(self): get_event_storage().put_scalars(**{{"segm/AP": self.values[self.iter]}})
def run(values, start, stop, state):
    trainer = Scores(); trainer.values = values
    trainer.register_hooks([{hook}])
    if state: trainer.load_state_dict(state)
    trainer.train(start, stop)
    return trainer.state_dict()
values = [10, 50, 20, 20, 5, 6, 7, 8]
run(values, 4, 8, run(values, 0, 4, None))
print("model_best is of AP", values[saved[-1]])
"""
    done = side.run(sys.executable, "-W", "ignore", "-c", code)
    return done.stdout.strip().splitlines()[-1] if done.returncode == 0 else last_line(done)


def no_detections(side: Side) -> str:
    """F9: evaluation without detections."""
    nothing = ["--eval-only", "model.roi_heads.box_predictor.test_score_thresh=1.0"]
    command = side.command("nothing", nothing[1])
    flag = command.index("--config-file")
    done = side.run(*command[:flag], nothing[0], *command[flag:])
    tables = [line for line in done.stdout.splitlines() if "copypaste: Task" in line]
    return f"{last_line(done)}; metrics of {', '.join(line.split()[-1] for line in tables) or 'nothing'}"


def sigterm(side: Side) -> str:
    """F10: a checkpoint on SIGTERM."""
    output = side.folder / "sigterm"
    process = subprocess.Popen(
        side.command("sigterm", max_iter=100_000),
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while process.poll() is None and len(side.losses("sigterm")) < 2:
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        status = process.wait(120)
    finally:
        process.kill()
    files = sorted(path.name for path in output.glob("*.pth"))
    return f"exit status {status}, checkpoints: {', '.join(files) or 'none'}"


def resumed(side: Side) -> str:
    """F11: equal weights after a resume."""
    side.run(*side.command("unbroken", "train.checkpointer.period=4", max_iter=8))
    # The first half is killed after four iterations, with the schedule of all eight.
    half = side.command("halves", "train.checkpointer.period=4", max_iter=8)
    process = subprocess.Popen(half, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (side.folder / "halves/last_checkpoint").is_file():
        time.sleep(0.02)
    process.kill()
    process.wait()
    flag = half.index("--config-file")
    side.run(*half[:flag], "--resume", *half[flag:])
    import torch

    # The weights are compared, because metrics.json has medians that restart with the process.
    files = [side.folder / name / "model_final.pth" for name in ("unbroken", "halves")]
    if not all(file.is_file() for file in files):
        return "did not finish"
    one, other = (torch.load(file, weights_only=True)["model"] for file in files)
    largest = max((one[key].float() - other[key].float()).abs().max().item() for key in one)
    return f"weights differ by up to {largest:.2g}" if largest else "weights are equal, bit for bit"


def without_gpu(side: Side) -> str:
    """F12: training without a GPU."""
    # As in the stock configs. The configs of this package choose the available device.
    return last_line(
        side.run(*side.command("cpu", "train.device=cuda"), *(["--num-gpus", "0"] if side.script == OURS else []))
    )


def two_processes(side: Side) -> str:
    """F13: two processes without a GPU."""
    command = side.command("two", "train.device=cpu")
    flag = command.index("--config-file")
    processes = ["--num-gpus", "2", "--dist-url", "auto"]
    trained = side.run(*command[:flag], *processes, *command[flag:])
    evaluated = side.run(*command[:flag], *processes, "--eval-only", *command[flag:])
    return f"training: {last_line(trained)}; --eval-only: {last_line(evaluated)}"


def bf16(side: Side) -> str:
    """F14: mixed precision on a CPU."""
    extra = ["train.amp.dtype=bf16"] if side.script == OURS else ["+train.amp.dtype=bf16"]
    done = side.run(*side.command("bf16", "train.amp.enabled=true", *extra))
    return f"{len(side.losses('bf16'))} iterations, {last_line(done)}"


def late_flag(side: Side) -> str:
    """F15: a flag after the overrides."""
    return last_line(side.run(*side.command("late", "--num-gpus", "0")))


def plugin(side: Side) -> str:
    """F20: a mask head of this package by override."""
    done = side.run(*side.command("plugin", "model.roi_heads.mask_head._target_=maskrcnn_ext.DCTMaskHead"))
    return last_line(done)


def two_machines(side: Side) -> str:
    """F21: two machines, and torchrun."""
    command = side.command("machines")
    flag = command.index("--config-file")
    url = ["--dist-url", "auto"]
    no_address = side.run(*command[:flag], "--num-machines", "2", "--num-gpus", "1", *url, *command[flag:])
    torchrun = side.run(
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        *command[3:],
        "train.ddp.device_ids=null",
    )
    world = "World size: 2" if "World size: 2" in torchrun.stdout + torchrun.stderr else "no group of 2 processes"
    return f"no address given: {last_line(no_address)}; torchrun: exit status {torchrun.returncode}, {world}"


ROWS: list[tuple[str, str, Callable[[Side], str]]] = [
    ("F6", "`train.max_itr=5`, a typo", typo),
    ("F7", "Detectron2's LSJ config is saved and loaded", saved_config),
    ("F8", "AP 10, 50, 20, 20, resumed, 5, 6, 7, 8: which is `model_best`", best_after_resume),
    ("F9", "evaluation of a model that detects nothing", no_detections),
    ("F10", "SIGTERM in training", sigterm),
    ("F11", "8 iterations, killed after 4 and resumed, compared with 8 uninterrupted ones", resumed),
    ("F12", "a config with `train.device=cuda` on a machine without a GPU", without_gpu),
    ("F13", "`--num-gpus 2` on a CPU", two_processes),
    ("F14", "mixed precision on a CPU", bf16),
    ("F15", "`--num-gpus 0` after the overrides", late_flag),
    ("F20", "a mask head of this package by override, through `DETECTRON2_ENV_MODULE`", plugin),
    ("F21", "two machines without an address; two processes of torchrun", two_machines),
]


def main() -> int:
    """Prints the table and returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = Path(sysconfig.get_path("data")) / "share/detectron2/tools/lazyconfig_train_net.py"
    parser.add_argument("--stock", type=Path, default=default, help="Detectron2's lazyconfig_train_net.py")
    parser.add_argument("--only", nargs="*", metavar="F", help="such as F6 F10; default: all")
    args = parser.parse_args()

    from maskrcnn_ext.data.tools.shapes import make_shapes

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        data = make_shapes(root / "shapes", num_images=8, size=96)
        sides = [
            Side(name, script, root / name, f"coco:{data}@{data.parent / 'images'}")
            for name, script in (("stock", args.stock), ("ours", OURS))
        ]
        print("| | case | `lazyconfig_train_net.py` | `train_net.py` |\n| --- | --- | --- | --- |", flush=True)
        for label, case, examine in ROWS:
            if not args.only or label in args.only:
                cells = [examine(side).replace("|", "\\|").replace(folder, "") for side in sides]
                print(f"| {label} | {case} | {cells[0]} | {cells[1]} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
