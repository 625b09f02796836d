"""Keeps signals that go to the whole process group, as from Ctrl-C, `timeout` or SLURM, from ending the workers of a loader."""

from __future__ import annotations

import os
import signal
import threading

# Signals on which training writes a checkpoint and stops.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


def ignore_group_signals() -> None:
    """Makes this worker ignore :data:`SIGNALS`, except for a SIGTERM of its parent, with which torch ends workers that hang.

    Without its workers, the training process could not finish its iteration and write a checkpoint.
    """
    if not hasattr(signal, "sigwaitinfo"):  # macOS: the sender of a SIGTERM is unknown
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return
    parent = os.getppid()
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)

    def receive() -> None:
        while True:
            received = signal.sigwaitinfo(SIGNALS)
            if received.si_signo == signal.SIGTERM and received.si_pid == parent:
                os._exit(0)

    threading.Thread(target=receive, daemon=True).start()
