"""The demo runs from any folder, and shows loss and AP while it trains."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from maskrcnn_ext.cli.demo import _show_metrics
from maskrcnn_ext.common.progress import Progress
from tests.conftest import ROOT


class RecordedProgress(Progress):
    """Keeps the arguments of every step."""

    def __init__(self, total):
        super().__init__(total)
        self.steps = []

    def step(self, count=1, **figures):
        super().step(count, **figures)
        self.steps.append((count, figures["figures"]))


def test_loss_and_ap_are_shown_as_the_metrics_arrive(tmp_path, capsys):
    file = tmp_path / "metrics.json"
    progress = RecordedProgress(20)
    assert _show_metrics(file, 0, progress) == 0, "before the training has written anything"

    first = [
        {"iteration": 4, "total_loss": 2.4567},
        {"iteration": 9, "total_loss": 1.5, "segm/AP": 3.21, "bbox/AP": 4.0},
    ]
    text = "".join(json.dumps(entry) + "\n" for entry in first)
    file.write_text(text + '{"iteration": 14, "total_l')  # the training is writing the third entry
    assert _show_metrics(file, 0, progress) == 2
    assert progress.steps == [(5, "loss 2.46"), (5, "loss 1.5")]
    assert capsys.readouterr().out == "      evaluated: mask AP 3.2, box AP 4.0\n"

    file.write_text(text + '{"iteration": 14, "total_loss": 0.25}\n')
    assert _show_metrics(file, 2, progress) == 3
    assert progress.steps[2:] == [(5, "loss 0.25")]
    assert progress.done == 15
    assert capsys.readouterr().out == ""


@pytest.mark.slow
@pytest.mark.skipif(
    Path(sys.prefix) != ROOT / ".venv", reason="scripts/demo.sh uses .venv, which these tests do not run in"
)
def test_the_quick_demo_from_another_folder(tmp_path):
    command = ["bash", str(ROOT / "scripts/demo.sh"), "--quick", "--output", str(tmp_path / "demo")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ}, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    metrics = json.loads((tmp_path / "demo/metrics.json").read_text())
    assert {"segm/AP", "bbox/AP", "segm/AP-disc"} <= set(metrics)
    page = tmp_path / "demo/report.html"
    assert page.stat().st_size > 50_000
    assert done.stdout.splitlines()[-1].endswith(str(page))
    assert f"mask AP {metrics['segm/AP']:.1f}, box AP {metrics['bbox/AP']:.1f} on 16 held-out images" in done.stdout
