"""Stops training after the present iteration when a signal arrives; the trainer then writes a checkpoint."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from detectron2.engine import HookBase
from detectron2.utils import comm

from maskrcnn_ext.engine.worker_signals import SIGNALS

# Exit status EX_TEMPFAIL of sysexits.h: run the same command again with --resume.
PREEMPTED = 75


class Preemption(HookBase):
    """Stops all processes on Ctrl-C, SIGTERM or SIGUSR1, which schedulers send to one or all processes before they kill them.

    Attributes:
        received: the signal that stopped training; None if there was none.
    """

    def __init__(self) -> None:
        """Prepares; signals are handled in the block of :meth:`handled`."""
        self.received: signal.Signals | None = None
        self._pending = 0
        self._group: Any = None

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handles the signals in a block, which trains and writes the checkpoint. A second Ctrl-C raises KeyboardInterrupt."""
        before = {number: signal.signal(number, self._handle_signal) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def before_train(self) -> None:
        """Starts the group in which the processes agree."""
        if comm.get_world_size() > 1:
            self._group = dist.new_group(backend="gloo")

    def _handle_signal(self, number: int, _: FrameType | None) -> None:
        if number == self._pending == signal.SIGINT:
            raise KeyboardInterrupt
        self._pending = number

    def after_step(self) -> None:
        """Stops every process if any of them has received a signal."""
        number = self._pending
        if self._group is not None:
            received = torch.tensor(number)
            dist.all_reduce(received, dist.ReduceOp.MAX, group=self._group)
            number = int(received)
        if number:
            self.received = signal.Signals(number)
            self.trainer.stop(f"{self.received.name} received; --resume continues from here")
