"""A signal ends training after the iteration that is running; the trainer then writes a checkpoint."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from detectron2.engine import HookBase
from detectron2.utils import comm

# "Temporary failure" of sysexits.h: run the same command again with --resume.
PREEMPTED = 75
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Preemption(HookBase):
    """Stops training on SIGTERM or SIGUSR1, which schedulers send before they kill. It is enough that one process of all gets it.

    Attributes:
        received: the signal after which training has stopped; None where none came.
    """

    def __init__(self) -> None:
        """Listens from the start of training to its end."""
        self.received: signal.Signals | None = None
        self._pending = 0
        self._before: dict[signal.Signals, Any] = {}
        self._group: Any = None

    def before_train(self) -> None:
        """Takes the signals."""
        self._before = {number: signal.signal(number, self._take) for number in SIGNALS}
        if comm.get_world_size() > 1:
            self._group = dist.new_group(backend="gloo")

    def _take(self, number: int, _: FrameType | None) -> None:
        self._pending = number

    def after_step(self) -> None:
        """Stops every process where a signal has come to any."""
        number = self._pending
        if self._group is not None:
            told = torch.tensor(number)
            dist.all_reduce(told, dist.ReduceOp.MAX, group=self._group)
            number = int(told)
        if number:
            self.received = signal.Signals(number)
            self.trainer.stop(f"{self.received.name} received; --resume goes on from here")

    def after_train(self) -> None:
        """Gives the signals back to whoever had them."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
