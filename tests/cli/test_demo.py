"""The demo trains on generated images, from any folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from maskrcnn_ext import get_dataset_dicts
from maskrcnn_ext.cli import main, train
from tests.conftest import ROOT


def test_the_arguments_of_the_training(tmp_path, monkeypatch):
    """The training is replaced: tests/cli/test_train.py runs it."""
    calls = []
    monkeypatch.setattr(train, "main", lambda argv: calls.append(argv) or 0)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/old").touch()
    assert main(["demo", "--quick", "--output", str(tmp_path)]) == 0
    ((data, flag, val, *rest),) = calls
    assert rest == ["-o", str(tmp_path / "run"), "train.max_iter=20", "train.eval_period=10"]
    assert flag == "--val"
    assert [len(get_dataset_dicts(name, filter_empty=False)) for name in (data, val)] == [64, 16]
    assert not (tmp_path / "run/old").exists()


@pytest.mark.slow
@pytest.mark.skipif(
    Path(sys.prefix) != ROOT / ".venv", reason="scripts/demo.sh uses .venv, which these tests do not run in"
)
def test_the_quick_demo_from_another_folder(tmp_path):
    command = ["bash", str(ROOT / "scripts/demo.sh"), "--quick", "--output", str(tmp_path / "demo")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ}, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    page = tmp_path / "demo/run/report.html"
    assert page.stat().st_size > 50_000
    assert f"report   {page}" in done.stdout.splitlines()
    assert any(line.startswith("AP of masks: ") for line in done.stdout.splitlines())
