"""Keeps the hyper-parameters that a config asks for when the state of an optimizer is restored."""

from __future__ import annotations

import inspect
from typing import Any

import torch

# These choose an implementation, which the restored state must fit.
_IMPLEMENTATION = {"capturable", "differentiable", "foreach", "fused"}


def hyperparameters(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Returns the arguments of the optimizer's class in each parameter group, such as the learning rate and the weight decay.

    Other values of a group are the optimizer's state.

    Example:
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        >>> hyperparameters(optimizer)[0]["lr"]
        0.1
    """
    names = inspect.signature(type(optimizer)).parameters.keys() - _IMPLEMENTATION
    return [{key: value for key, value in group.items() if key in names} for group in optimizer.param_groups]


def restore_hyperparameters(optimizer: torch.optim.Optimizer, wanted: list[dict[str, Any]]) -> list[str]:
    """Sets hyper-parameters again after ``optimizer.load_state_dict`` has replaced them by those of a checkpoint.

    The learning-rate schedule starts from ``initial_lr``.

    Args:
        optimizer: changed in place.
        wanted: of :func:`hyperparameters`, before the state was loaded.

    Returns:
        One text for each change, such as "lr 0.001 -> 0.0001".
    """
    changes: dict[str, None] = {}
    for group, values in zip(optimizer.param_groups, wanted, strict=True):
        for key, value in values.items():
            before = group.get("initial_lr", value) if key == "lr" else group.get(key)
            if before != value:
                changes[f"{key} {before} -> {value}"] = None
            group[key] = value
        if "initial_lr" in group and "lr" in values:
            group["initial_lr"] = values["lr"]
    return list(changes)
