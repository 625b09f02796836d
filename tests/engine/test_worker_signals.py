"""Signals to the whole process group, as from `timeout`, SLURM or Ctrl-C, end a training with a checkpoint, also with loader workers."""

import os
import signal
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.helpers.small_run import small_run, spec_of


def start(spec, output_dir):
    """Starts an endless training in a separate process group, and waits for its first iterations."""
    overrides = small_run(spec, output_dir, **{"train.max_iter": 100000, "dataloader.train.num_workers": 2})
    command = [sys.executable, str(ROOT / "scripts/train_net.py"), "--config-file", "domains/shapes.py", *overrides]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, start_new_session=True
    )
    for line in process.stdout:
        if "iter: 2 " in line:
            return process
    raise AssertionError("the training has ended")


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_to_the_group_ends_in_a_checkpoint(number, shapes, tmp_path):
    process = start(spec_of(shapes), tmp_path)
    try:
        os.killpg(process.pid, number)
        output, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 75, output[-3000:]
    assert "run the same command with --resume to continue" in output
    assert "Traceback" not in output
    last = (tmp_path / "last_checkpoint").read_text()
    assert (tmp_path / last).is_file()
