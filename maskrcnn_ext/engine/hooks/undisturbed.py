"""A look at a model that leaves no trace in the training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from detectron2.utils.events import EventStorage
from torch import nn

from maskrcnn_ext.common.random_state import seeded


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Lets a model run in any mode, draw random numbers and write scalars; afterwards all is as it was, bit for bit.

    That is: the mode of every module, the buffers, the generators of Python, numpy, torch and the model's CUDA device. Scalars and images
    that the model puts into Detectron2's storage are lost. No gradients are recorded.
    """
    device = device_of(model)
    modes = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    try:
        # From iteration 1: at 0, a model with `vis_period` would draw.
        with torch.no_grad(), seeded(0), EventStorage(1):
            yield
    finally:
        if cuda is not None:
            torch.cuda.set_rng_state(cuda, device)
        for module, mode in modes:
            module.training = mode
        for module, name, buffer, values in buffers:
            setattr(module, name, buffer)  # some put a new tensor in its place
            buffer.copy_(values)


def device_of(model: nn.Module) -> torch.device:
    """Returns where a model's parameters are."""
    device: torch.device = next(model.parameters()).device
    return device
