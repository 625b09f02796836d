"""Prediction on a Ray cluster: complete and equal to that of one process, also when a worker is killed."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest

from maskrcnn_ext.cli import main
from maskrcnn_ext.data.tools.shapes import make_shapes
from tests.helpers.small_model import make_run

COMMAND = [sys.executable, "-m", "maskrcnn_ext", "predict"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ray")
    data = make_shapes(folder / "data", num_images=24, size=96)
    make_run(folder / "run", f"coco:{data}@{data.parent / 'images'}")
    (folder / "data/images/broken.png").write_bytes(b"no image")
    return folder


def arguments(folder, out, *more):
    return [str(folder / "run"), str(folder / "data/images"), "--save", "json", "-o", str(out), *more]


def contents(out):
    """Results and images; the images that failed."""
    names = ("predictions.json", "images.json")
    return [json.loads((out / name).read_text()) for name in names], (out / "failed.txt").read_text()


@pytest.mark.slow
def test_results_are_complete_and_equal_after_a_worker_was_killed(folder, tmp_path, capsys):
    pytest.importorskip("ray")
    assert main(["predict", *arguments(folder, tmp_path / "alone")]) == 3  # one image is broken

    out = tmp_path / "ray"
    process = subprocess.Popen(
        [*COMMAND, *arguments(folder, out, "--ray", "2")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Without the guard against the network: Ray's processes connect by the machine's own address.
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )
    killed = None
    while killed is None and process.poll() is None:
        workers = workers_of(process.pid)
        if found_in(out) >= 3 and workers:
            killed = workers[0]
            os.kill(killed, signal.SIGKILL)
        time.sleep(0.02)
    output, _ = process.communicate(timeout=300)
    assert killed is not None, output
    assert found_in(out) == 24
    assert process.returncode == 3, output
    assert "known from an earlier run" not in output
    assert contents(out) == contents(tmp_path / "alone")

    # Finished images are not predicted again: no worker is started for them.
    (folder / "data/images/broken.png").rename(tmp_path / "broken.png")
    try:
        assert main(["predict", *arguments(folder, out, "--ray", "2")]) == 0
        assert "24 images (24 known from an earlier run)" in capsys.readouterr().out
    finally:
        shutil.move(tmp_path / "broken.png", folder / "data/images/broken.png")


def workers_of(pid):
    """Processes of ours that Ray has started."""
    found = []
    for own in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has ended
            found += [own.pid] if "_Worker" in "".join(own.cmdline()) else []
    return found


def found_in(out):
    """Images in the shards."""
    return sum(len(file.read_bytes().splitlines()) - 1 for file in (out / "shards").glob("*.jsonl"))


def test_videos_and_zero_workers_are_refused(folder, tmp_path, capsys):
    (tmp_path / "a.mp4").write_bytes(b"")
    assert (
        main(["predict", str(folder / "run"), str(tmp_path / "a.mp4"), "-o", str(tmp_path / "out"), "--ray", "2"]) == 2
    )
    assert "the frames of a video must be predicted in order" in capsys.readouterr().err
    assert main(["predict", *arguments(folder, tmp_path / "out", "--ray", "0")]) == 2
    assert "--ray 0: expected at least 1 worker" in capsys.readouterr().err
