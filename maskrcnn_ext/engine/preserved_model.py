"""Runs a model during training without an effect on the training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from detectron2.utils.events import EventStorage
from torch import nn

from maskrcnn_ext.common.random_state import seeded


@contextmanager
def preserved_model(model: nn.Module) -> Iterator[None]:
    """Lets a model run in any mode, draw random numbers and write scalars; everything is restored afterwards, bit for bit.

    Restored are the mode of every module, the buffers, and the random generators of Python, NumPy, torch and the model's CUDA
    device. Scalars and images that the model writes to Detectron2's storage are dropped. Gradients are not recorded.

    Example:
        >>> model = nn.BatchNorm1d(2)
        >>> with preserved_model(model):
        ...     _ = model(torch.randn(4, 2))
        >>> model.running_mean
        tensor([0., 0.])
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
        # From iteration 1: at iteration 0, a model with `vis_period` would draw pictures.
        with torch.no_grad(), seeded(0), EventStorage(1):
            yield
    finally:
        if cuda is not None:
            torch.cuda.set_rng_state(cuda, device)
        for module, mode in modes:
            module.training = mode
        for module, name, buffer, values in buffers:
            setattr(module, name, buffer)  # some modules assign a new tensor
            buffer.copy_(values)


def device_of(model: nn.Module) -> torch.device:
    """Returns the device of a model's parameters."""
    device: torch.device = next(model.parameters()).device
    return device
