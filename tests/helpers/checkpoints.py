"""Runs whose weights are their iteration, and damage to their files."""

import torch
from torch import nn

from maskrcnn_ext.engine.checkpoint.checkpointer import Checkpointer


def linear(fill=0.0):
    model = nn.Linear(2, 2)
    nn.init.constant_(model.weight, fill)
    return model


def saved_run(folder, *iterations, prefix="model"):
    """Saves checkpoints whose weights are their iteration."""
    for iteration in iterations:
        Checkpointer(linear(iteration), str(folder)).save(f"{prefix}_{iteration:07d}", iteration=iteration)


def resumed(folder, path="", **options):
    model = linear(-1)
    Checkpointer(model, str(folder), **options).resume_or_load(path, resume=True)
    return model.weight[0, 0].item()


def truncate(file):
    file.write_bytes(file.read_bytes()[:-100])


def flip(file):
    content = bytearray(file.read_bytes())
    content[content.index(torch.load(file, weights_only=True)["model"]["weight"].numpy().tobytes())] ^= 1
    file.write_bytes(content)
