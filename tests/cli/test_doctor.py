"""``maskrcnn-ext doctor`` starts in broken environments, and names the fault and the command that fixes it."""

import sys
from pathlib import Path

import pytest

import maskrcnn_ext

PACKAGE = Path(maskrcnn_ext.__file__).parents[1]


def broken_module(folder, name, text):
    """Puts a module in front of the installed one."""
    path = folder / name
    path.mkdir(parents=True)
    (path / "__init__.py").write_text(text)


@pytest.fixture
def doctor(run_python, tmp_path):
    def run(env=None):
        path = f"{tmp_path / 'front'}:{PACKAGE}"
        return run_python("-m", "maskrcnn_ext", "doctor", env={"PYTHONPATH": path, **(env or {})})

    return run


def test_a_working_environment(doctor):
    done = doctor()
    assert done.returncode == 0, done.stdout
    assert "everything works" in done.stdout
    assert len(done.stdout.splitlines()) < 25, "one screen"
    for part in ("Python", "torch", "torchvision", "OpenCV", "detectron2", "pkg_resources", "numpy", "Pillow"):
        assert f"ok     {part} " in done.stdout


# Module, its text, and what is reported: part, reason, fix. Faults of a group are found in one run.
FAULTS = {
    "torch, on which most depends": [
        (
            "torch",
            "raise ImportError('libcudart.so.13: no such file')",
            "torch",
            "libcudart",
            "pip install --upgrade torch torchvision",
        ),
    ],
    "packages by themselves": [
        (
            "torchvision",
            "raise RuntimeError('operator torchvision::nms does not exist')",
            "torchvision",
            "nms does not exist",
            "torch torchvision",
        ),
        (
            "cv2",
            "raise ImportError('libGL.so.1: cannot open')",
            "OpenCV",
            "libGL",
            "pip install opencv-python-headless",
        ),
        ("detectron2", "raise ImportError('half removed')", "detectron2", "half removed", "install_detectron2.py"),
        ("pycocotools", "import os; os._exit(139)", "pycocotools", "ended with status 139", "pip install pycocotools"),
    ],
    "what Detectron2 needs": [
        (
            "detectron2",
            "raise ModuleNotFoundError(\"No module named 'pkg_resources'\")",
            "model zoo",
            "pkg_resources",
            "'setuptools<82'",
        ),
    ],
}


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
def test_a_fault_is_named_with_its_fix(doctor, tmp_path, faults):
    for module, text, *_ in faults:
        broken_module(tmp_path / "front", module, text)
    done = doctor({"DETECTRON2_DATASETS": "/nowhere/at/all"})
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    for _, _, part, reason, fix in faults:
        (index,) = [i for i, line in enumerate(lines) if line.startswith(f"BROKEN {part} ")]
        assert reason in lines[index]
        assert fix in lines[index + 1]
    assert "DETECTRON2_DATASETS=/nowhere/at/all: no such folder" in done.stdout
    assert not done.stderr


def test_it_starts_without_any_installed_package(tmp_path, run_python):
    """No site-packages at all: only the standard library and this package."""
    code = f"import sys; sys.path.insert(0, {str(PACKAGE)!r}); from maskrcnn_ext.cli import main; sys.exit(main(['doctor']))"
    # The probes are children of sys.executable: a Python without site-packages has to be one by itself.
    import venv

    venv.create(tmp_path / "bare", with_pip=False)
    import subprocess

    done = subprocess.run([tmp_path / "bare/bin/python", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    assert "BROKEN torch          ModuleNotFoundError: No module named 'torch'" in done.stdout
    assert sys.version.split()[0] in done.stdout
