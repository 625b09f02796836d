"""Trains a small model again and again, killing it at random moments: python kill_at_random.py FOLDER KILLS SEED.

Prints one JSON line: kills, those during a write, iterations, and the hash of the weights after the last run, which is not killed.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from detectron2.engine import hooks
from detectron2.utils.env import seed_all_rng
from fvcore.common.param_scheduler import CosineParamScheduler
from torch import nn

from maskrcnn_ext.engine.checkpoint.checkpointer import Checkpointer
from maskrcnn_ext.engine.determinism import weights_hash
from maskrcnn_ext.engine.hooks.checkpointing import Checkpointing
from maskrcnn_ext.engine.hooks.ema import EMA
from maskrcnn_ext.engine.resume.loader import ResumableLoader
from maskrcnn_ext.engine.resume.state import LoopState, Restore
from maskrcnn_ext.engine.train_loop import Trainer

ITERATIONS = 400


class Noisy(nn.Module):
    """Draws random numbers in every step."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 64)

    def forward(self, batch):
        return {"loss": (self.layer(torch.stack([sample["x"] for sample in batch])) + torch.rand(64)).square().mean()}


def loader():
    from detectron2.data import build_detection_train_loader
    from detectron2.data.samplers import TrainingSampler

    records = [{"image_id": i, "width": 4 + i % 3, "height": 5} for i in range(10)]
    return build_detection_train_loader(
        records, mapper=lambda record: {**record, "x": torch.rand(64)}, sampler=TrainingSampler(10), total_batch_size=2
    )


def train(folder: Path) -> str:
    """Trains to the end, from the last checkpoint if there is one; returns the hash of the weights."""
    seed_all_rng(1)
    model = Noisy()
    checkpointer = Checkpointer(model, str(folder))
    resumes = checkpointer.has_checkpoint()
    saved = checkpointer.resume_or_load("", resume=True)
    state = LoopState(saved.get("loop"))
    state.before_loader()
    data = ResumableLoader(loader())
    state.set_position(data)
    trainer = Trainer(model, data, torch.optim.SGD(model.parameters(), 0.1, momentum=0.9))
    checkpointing = Checkpointing(checkpointer, period=1, max_to_keep=3, collect=state.collect)
    schedule = hooks.LRScheduler(scheduler=CosineParamScheduler(1.0, 0.1))
    restore = Restore(state, at_evaluation=[], period=0) if resumes else None
    trainer.register_hooks([schedule, EMA(0.9), checkpointing, restore])
    checkpointer.add_checkpointable("trainer", trainer)
    start = 0
    if resumes:
        trainer.load_state_dict(saved["trainer"])
        start = trainer.iter + 1
    trainer.train(start, ITERATIONS)
    return weights_hash(model)


def last_iteration(folder: Path) -> int:
    """The iteration of the newest finished checkpoint."""
    note = folder / "last_checkpoint"
    if not note.is_file():
        return -1
    name = note.read_text()
    return ITERATIONS - 1 if name == "model_final.pth" else int(name[len("model_") : -len(".pth")])


def main() -> None:
    """See above."""
    folder, kills, moments = Path(sys.argv[1]), int(sys.argv[2]), random.Random(int(sys.argv[3]))
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    during_writes, done = 0, -1
    for _ in range(kills):
        child = os.fork()
        if child == 0:
            train(folder)
            os._exit(0)
        time.sleep(moments.uniform(0.0, 0.35))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        during_writes += any(folder.glob(".partial-*"))
        now = last_iteration(folder)
        assert now >= done, f"iteration {done} was saved, and now {now}"
        done = now
    print(json.dumps({"kills": kills, "during_writes": during_writes, "reached": done, "hash": train(folder)}))


if __name__ == "__main__":
    main()
