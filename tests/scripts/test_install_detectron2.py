"""The installer reports failures in one line, changes nothing then, and builds a valid wheel."""

import importlib.util
import io
import subprocess
import sys
import tarfile
import venv

import pytest

from tests.conftest import ROOT

SCRIPT = ROOT / "scripts/install_detectron2.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("install_detectron2", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def archive(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(f"pb1-detectron2-0.6/{name}")
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


def small_source(script) -> dict[str, str]:
    """The least source that all edits apply to: each file holds what is to be replaced, as often as expected."""
    files = {name: "".join((old + "\n") * count for old, _, count in edits) for name, edits in script.EDITS.items()}
    return {
        **files,
        "detectron2/__init__.py": "",
        "tools/train_net.py": "# a tool\n",
        "LICENSE": "Apache\n",
        "setup.py": "",
    }


def test_a_working_installation_is_kept(run_python):
    # A plugin hook that is not installed yet does not make it look broken.
    done = run_python(SCRIPT, env={"DETECTRON2_ENV_MODULE": "not_installed_yet.env"})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("detectron2: ")
    assert done.stdout.rstrip().endswith("works, nothing to do")


def test_a_wrong_hash_stops_it(run_python, tmp_path):
    (tmp_path / "other.tar.gz").write_bytes(b"something else")
    done = run_python(SCRIPT, "--archive", tmp_path / "other.tar.gz", "--wheel-dir", tmp_path / "wheels")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "other.tar.gz has sha256 " in done.stderr
    assert f"expected {'5d2e9e51'}" in done.stderr
    assert list((tmp_path / "wheels").iterdir()) == []


def test_a_missing_archive_stops_it(run_python, tmp_path):
    done = run_python(SCRIPT, "--archive", "nowhere.tar.gz", "--wheel-dir", tmp_path / "wheels")
    assert (done.returncode, done.stderr) == (1, "detectron2: error: no such file: nowhere.tar.gz\n")


def test_an_unreachable_index_stops_it(run_python, tmp_path):
    closed = {
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_RETRIES": "0",
        "PIP_NO_CACHE_DIR": "1",
    }
    done = run_python(
        SCRIPT, "--wheel-dir", tmp_path, env={**closed, "PIP_CONFIG_FILE": "/dev/null", "PIP_FIND_LINKS": ""}
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "package index" in done.stderr
    assert "pip config list" in done.stderr


def test_missing_torch_is_one_line(tmp_path):
    venv.create(tmp_path / "bare", with_pip=False)
    command = [tmp_path / "bare/bin/python", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "torch and torchvision must work first (ModuleNotFoundError: No module named 'torch')" in done.stderr


def test_an_unexpected_source_stops_it(script):
    files = small_source(script)
    files["detectron2/structures/masks.py"] += "np.bool)\n"
    with pytest.raises(
        script.InstallError, match=r"masks\.py: expected 3 of 'np\.bool\)', found 4: nothing was installed"
    ):
        script._wheel_contents(archive(files))
    del files["detectron2/structures/masks.py"]
    with pytest.raises(script.InstallError, match=r"the archive lacks detectron2/structures/masks\.py"):
        script._wheel_contents(archive(files))


def test_the_wheel_is_deterministic_and_pip_installs_it(script, tmp_path):
    source = archive(small_source(script))
    first, second = (
        script._write_wheel(source, tmp_path / name) for name in ("a", "b") if (tmp_path / name).mkdir() is None
    )
    assert first.read_bytes() == second.read_bytes()
    target = tmp_path / "site"
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(target),
        str(first),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    assert (target / "share/detectron2/tools/train_net.py").read_text() == "# a tool\n"
    assert "dtype=bool" in (target / "detectron2/utils/video_visualizer.py").read_text()
    assert not (target / "setup.py").exists()
    assert not (target / "tools").exists(), "a top-level package called tools would shadow other people's"


def test_damage_is_found(script, tmp_path):
    """A changed and a missing file of an installation, in a separate environment."""
    python = tmp_path / "bare/bin/python"
    venv.create(tmp_path / "bare", with_pip=False)
    wheel = script._write_wheel(archive(small_source(script)), tmp_path)
    command = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        str(wheel),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=120)

    def fault() -> str:
        # The small source cannot be imported, so that only the files are looked at.
        code = f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r}); import install_detectron2 as i"
        return subprocess.run(
            [python, "-c", f"{code}; i._PROBE = 'pass'; print(i.find_fault())"],
            capture_output=True,
            text=True,
            timeout=120,
        ).stdout.strip()

    assert fault() == "None"
    (file,) = (tmp_path / "bare/lib").glob("python*/site-packages/detectron2/structures/masks.py")
    file.write_text(file.read_text() + "# edited")
    assert fault() == "file damaged or missing: detectron2/structures/masks.py"
    file.unlink()
    assert fault() == "file damaged or missing: detectron2/structures/masks.py"
