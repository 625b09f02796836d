"""Keeps an exponential moving average of the weights, which is often more accurate than the weights themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from detectron2.engine import HookBase
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from maskrcnn_ext.common.distributed import unwrap_ddp
from maskrcnn_ext.errors import InputError


class EMA(HookBase):
    """Averages the parameters after every step. The average is saved in checkpoints and does not affect the training.

    Update n, counted from 0, sets the average to ``d * average + (1 - d) * weights`` with ``d = min(decay, (1 + n) / (10 + n))``. The
    smaller decay of the first updates soon forgets the initial weights, from which the average starts. Buffers, such as the running
    statistics of BatchNorm, are not averaged: the model's are used.

    Example::

        train.ema.decay=0.999
    """

    def __init__(self, decay: float) -> None:
        """Prepares; register this hook before the hook that writes checkpoints.

        Args:
            decay: weight of the old average; 0.999 averages over about 1000 steps.

        Raises:
            InputError: `decay` is not between 0 and 1.
        """
        if not 0 < decay < 1:
            raise InputError(f"train.ema.decay={decay}: expected a number between 0 and 1, such as 0.999")
        self._decay = decay
        self._updates = 0
        self._average: dict[str, Tensor] = {}  # inside `applied`, the weights in training
        self._is_applied = False

    def before_train(self) -> None:
        """Starts from the present weights, unless an average was loaded from a checkpoint."""
        if not self._average:
            self._average = {name: value.detach().clone() for name, value in self._weights().items()}

    def after_step(self) -> None:
        """Moves the average towards the weights."""
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        self._updates += 1
        weights = self._weights()
        get_ema_multi_avg_fn(decay)([self._average[name] for name in weights], list(weights.values()), self._updates)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Loads the average into a model inside the block, and restores its weights afterwards, bit for bit. Do not train in the block.

        Args:
            model: the model that is trained; may be wrapped in DistributedDataParallel.
        """
        self._swap(model)
        self._is_applied = True
        try:
            yield
        finally:
            self._swap(model)
            self._is_applied = False

    @torch.no_grad()
    def _swap(self, model: nn.Module) -> None:
        for name, weight in unwrap_ddp(model).named_parameters():
            # In place, because compiled models keep the addresses of their weights.
            kept = weight.clone()
            weight.copy_(self._average[name])
            self._average[name].copy_(kept)

    def _weights(self) -> dict[str, nn.Parameter]:
        return dict(unwrap_ddp(self.trainer.model).named_parameters())

    def state_dict(self) -> dict[str, Any]:
        """Returns the average by the names of the model's parameters, and the number of updates.

        Inside :meth:`applied`, where a checkpoint's model is the average, the weights in training are in the state as well.
        """
        if not self._is_applied:
            return {"updates": self._updates, "average": dict(self._average)}
        average = {name: value.detach() for name, value in self._weights().items()}
        return {"updates": self._updates, "average": average, "weights": dict(self._average)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the average of a checkpoint, and the weights in training if the checkpoint's model is the average.

        Raises:
            InputError: the average belongs to another model.
        """
        weights, average = self._weights(), state["average"]
        for name in weights.keys() | average.keys():
            if name not in weights or name not in average or weights[name].shape != average[name].shape:
                raise InputError(
                    f"the checkpoint's average of the weights (train.ema) belongs to another model: {name} is missing or has another shape"
                )
        self._updates = state["updates"]
        self._average = {name: average[name].to(weight, copy=True) for name, weight in weights.items()}
        with torch.no_grad():
            for name, weight in state.get("weights", {}).items():
                weights[name].copy_(weight)
