"""Type checkers find an installed package: a misspelt argument is an error in an editor."""

import os
import re
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

pytest.importorskip("mypy")

PROGRAM = """\
from maskrcnn_ext import Predictor, get_config

Predictor("domains/nuclei.py", device="cpu")
Predictor("domains/nuclei.py", devise="cpu")
get_config(3)
"""
# The large packages are skipped: they are not tested here.
CONFIG = """\
[mypy]
ignore_missing_imports = True
follow_imports = silent
[mypy-torch.*,torchvision.*,detectron2.*,fvcore.*,cv2.*,numpy.*,scipy.*,PIL.*,omegaconf.*,pycocotools.*]
follow_imports = skip
"""


def test_the_installation_is_a_static_path():
    """Type checkers read paths in .pth files, but do not run the import hooks of setuptools' default editable mode."""
    files = [distribution("maskrcnn_ext").locate_file(file) for file in distribution("maskrcnn_ext").files or ()]
    if any(file.name == "py.typed" for file in files):
        return  # a regular installation
    paths = [Path(line) for file in files if file.suffix == ".pth" for line in file.read_text().splitlines()]
    assert any((path / "maskrcnn_ext/py.typed").is_file() for path in paths)


@pytest.mark.slow
def test_mypy_reports_misspelt_arguments_of_an_installed_package(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "mypy.ini").write_text(CONFIG)
    environment = {name: value for name, value in os.environ.items() if name not in ("MYPYPATH", "PYTHONPATH")}
    command = [sys.executable, "-m", "mypy", "--python-executable", sys.executable, "program.py"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert [int(re.match(r"program.py:(\d+):", line)[1]) for line in errors] == [4, 5], done.stdout + done.stderr
    assert '"devise"' in errors[0]
    assert '"int"; expected "str"' in errors[1]
