"""`maskrcnn-ext serve` as a process: it answers, survives the loss of a worker, and ends at a signal."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from maskrcnn_ext.cli import main
from tests.inference.conftest import photo, run, spec  # noqa: F401  # fixtures

pytest.importorskip("uvicorn")


def fetch(url, body=None):
    """Returns the status and the JSON of an answer."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=300) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


@pytest.mark.slow
def test_a_server_answers_loses_a_worker_and_ends(run, photo):
    command = [sys.executable, "-m", "maskrcnn_ext", "serve", str(run), "--port", "0", "--time-limit", "300"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            url = server.stdout.readline().strip()
            assert fetch(f"{url}/health")[0] == 200
            status, found = fetch(f"{url}/predict?threshold=0", photo.read_bytes())
            assert (status, found["width"]) == (200, 96)
            assert found["objects"]
            assert fetch(f"{url}/predict", photo.read_bytes()[:500])[0] == 400
            os.kill(fetch(f"{url}/health")[1]["processes"][0]["pid"], signal.SIGKILL)
            status, again = fetch(f"{url}/predict?threshold=0", photo.read_bytes())
            assert (status, again) == (200, found)
            worker = fetch(f"{url}/health")[1]["processes"][0]["pid"]
        finally:
            server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
        assert "stopped by SIGTERM" in server.stderr.read()
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


def test_mistakes_are_one_line(tmp_path, capsys):
    (tmp_path / "model.engine").touch()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        for arguments, message in (
            ([str(tmp_path), "--port", str(port)], f"--port {port}: Address already in use"),
            ([str(tmp_path / "nowhere"), "--port", "0"], "nowhere: no such file or folder"),
            (
                [str(tmp_path / "model.engine"), "--port", "0"],
                "an exported model (.onnx, .xml, .ts, .pt2), or the folder",
            ),
            ([str(tmp_path), "--port", "0"], "is not the folder of a run"),
            ([str(tmp_path), "--port", "99999"], "--port 99999"),
            ([str(tmp_path), "--workers", "0"], "--workers 0: expected at least 1"),
            ([str(tmp_path), "--time-limit", "0"], "--time-limit 0: expected more than 0"),
        ):
            assert main(["serve", *arguments]) == 2
            error = capsys.readouterr().err
            assert error.startswith("maskrcnn-ext serve: error: ")
            assert message in error
            assert error.count("\n") == 1
