"""Stops a command on Ctrl-C or SIGTERM, with time to save finished work."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# EX_TEMPFAIL of sysexits.h: run the same command again.
STOPPED = 75


class Stopped(KeyboardInterrupt):
    """A signal asks the program to stop; the message is its name. No handler of `Exception` catches it, as with Ctrl-C."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Raises :class:`Stopped` in the block at the first Ctrl-C (SIGINT) or SIGTERM, and KeyboardInterrupt at a Ctrl-C after that.

    Further SIGTERMs are ignored: `timeout` sends one to the process and another one to its group. Does nothing outside the main thread,
    where Python handles no signals.

    Example:
        ::

            with stoppable():
                run()
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Stopped(signal.Signals(number).name)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
