"""The quick demo runs from any folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


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
