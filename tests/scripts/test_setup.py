"""The failures of the set-up script, in a copy of the scripts without installed packages."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT

FILES = ("setup.py", "pyproject.toml", "scripts/setup.sh", "scripts/requirements.txt", "scripts/install_detectron2.py")


@pytest.fixture
def setup(tmp_path):
    for name in FILES:
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "tree" / name)

    def run(python, **env):
        command = ["bash", str(tmp_path / "tree/scripts/setup.sh")]
        environment = {**os.environ, "PYTHON": str(python), **env}
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=120)

    return run


def test_an_unsuitable_python_is_named(setup, tmp_path):
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    for python in (old, tmp_path / "nowhere"):
        done = setup(python)
        assert done.returncode == 1
        message = f"setup: error: PYTHON={python} is not Python 3.10, 3.11 or 3.12 with the venv module"
        assert done.stderr.strip() == message
    assert not (tmp_path / "tree/.venv").exists()


@pytest.mark.slow
def test_an_unreachable_index_stops_it_and_a_broken_venv_is_replaced(setup, tmp_path):
    venv = tmp_path / "tree/.venv"
    (venv / "bin").mkdir(parents=True)  # what an interrupted run may leave
    closed = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_EXTRA_INDEX_URL": "", "PIP_RETRIES": "0"}
    done = setup(sys.executable, PIP_CONFIG_FILE="/dev/null", PIP_FIND_LINKS="", PIP_NO_CACHE_DIR="1", **closed)
    assert done.returncode != 0
    assert "removing" in done.stdout
    assert "No matching distribution found" in done.stderr
    assert not (venv / ".maskrcnn_ext_setup").exists(), "the next run must not take this one for complete"
