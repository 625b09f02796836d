"""Uploads are read within limits; pages, health and errors have their statuses."""

import asyncio
import json
import re

import pytest

from maskrcnn_ext.serving.workers import Workers
from tests.helpers.served_models import Source, ask, png

pytest.importorskip("starlette")


@pytest.fixture(scope="module")
def serve():
    """Returns a function that sends a request, and then checks that the server answers the next one."""
    from maskrcnn_ext.serving.app import build_app

    workers = Workers(Source().load)
    workers.start()
    app = build_app(workers, max_bytes=2000, seconds=0.5)
    runner = asyncio.new_event_loop()
    runner.run_until_complete(workers.__aenter__())

    def send(*arguments, **options):
        answer = runner.run_until_complete(asyncio.wait_for(ask(app, *arguments, **options), 20))
        after = runner.run_until_complete(asyncio.wait_for(ask(app, "/predict", png(), method="POST"), 20))
        assert after[0] == 200
        return answer

    yield send
    runner.run_until_complete(workers.__aexit__())
    runner.close()


def test_predictions(serve):
    image = png(8, 6, 200)
    status, body = serve("/predict", image[:30], image[30:], method="POST", query="threshold=0.2&masks=none")
    found = json.loads(body)
    assert (status, found["width"], found["height"]) == (200, 8, 6)
    assert found["objects"][0]["class"] == "bright"
    status, body = serve("/predict", image, method="POST", query="threshold=0.9")
    assert json.loads(body)["objects"] == []


def test_health_and_info(serve):
    status, body = serve("/health")
    assert (status, json.loads(body)["status"]) == (200, "ok")
    info = json.loads(serve("/info")[1])
    assert info["classes"] == ["bright"]
    assert info["limits"] == {"bytes": 2000, "seconds": 0.5, "pixels": 50_000_000}


def test_the_page_needs_no_other_file(serve):
    status, body = serve("/")
    page = body.decode()
    assert status == 200
    assert not re.search(
        r"""(src|href)=|https?://|@import|url\(""", re.sub(r"<script>.*</script>", "", page, flags=re.S)
    )
    assert "http" not in page


@pytest.mark.parametrize(
    ("path", "method", "status", "message"),
    [
        ("/predcit", "POST", 404, "POST /predcit: not found"),
        ("/predict", "GET", 405, "GET /predict: method not allowed"),
    ],
)
def test_unknown_requests_are_answered_in_json(serve, path, method, status, message):
    found, body = serve(path, method=method)
    assert found == status
    assert json.loads(body) == {"error": f"{message}; there are GET /, GET /health, GET /info and POST /predict"}


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("threshold=x", "=x"),
        ("threshold=2", "=2"),
        ("threshold=nan", "=nan"),
        ("masks=png", "=png"),
        ("mask=rle", "mask:"),
    ],
)
def test_wrong_settings(serve, query, message):
    status, body = serve("/predict", png(), method="POST", query=query)
    assert status == 400
    assert message in json.loads(body)["error"]


@pytest.mark.parametrize(
    ("parts", "options", "status", "message"),
    [
        ([], {"headers": [("content-length", "2001")]}, 413, "more than 2000 bytes"),
        ([], {"headers": [("content-length", "9" * 5000)]}, 413, "more than 2000 bytes"),
        ([b"x" * 1500, b"x" * 1500], {"slow": True}, 413, "more than 2000 bytes"),
        ([b"x" * 10], {"hang_up": True}, 400, "interrupted"),
        ([png()[:40]], {"slow": True}, 408, "longer than 0.5 seconds"),
        ([b"--x"], {"headers": [("content-type", "multipart/form-data; boundary=x")]}, 415, "data-binary"),
        ([b"text"], {}, 415, "not an image"),
        ([], {}, 415, "not an image"),
    ],
)
def test_bad_uploads(serve, parts, options, status, message):
    answer = serve("/predict", *parts, method="POST", **options)
    assert answer[0] == status
    assert message in json.loads(answer[1])["error"]


def test_other_methods_and_paths(serve):
    assert serve("/predict")[0] == 405
    assert serve("/../etc/passwd")[0] == 404
