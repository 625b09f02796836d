"""Runs a program on a terminal of 100 columns."""

import os
import pty
import subprocess
import sys

from tests.conftest import ROOT


def run_on_terminal(script, *arguments):
    """Returns what Python prints on the terminal when it runs `script`, with control sequences."""
    main, terminal = pty.openpty()
    env = {
        **os.environ,
        "COLUMNS": "100",
        "TERM": "xterm",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ['PYTHONPATH']}",
    }
    command = [sys.executable, "-W", "ignore", "-c", script, *map(str, arguments)]
    process = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=env)
    os.close(terminal)
    shown = b""
    while True:
        try:
            part = os.read(main, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    assert process.wait() == 0, shown.decode()
    os.close(main)
    return shown.decode()
