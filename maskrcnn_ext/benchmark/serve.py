"""Measures a server under load: images per second and the time of an answer, by the number of clients."""

from __future__ import annotations

import argparse
import http.client
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from maskrcnn_ext.benchmark.models import photograph, positive, size
from maskrcnn_ext.benchmark.tables import Row, Table
from maskrcnn_ext.common.text import plural
from maskrcnn_ext.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this benchmark to the parser."""
    parser.add_argument("model", help="what `maskrcnn-ext serve` takes: the folder of a run, or an exported model")
    parser.add_argument(
        "--clients",
        type=positive,
        nargs="+",
        default=[1, 4, 8, 16, 32],
        help="numbers of clients, each of which sends one image after the other (default: 1 4 8 16 32)",
    )
    parser.add_argument("--requests", type=positive, default=64, help="images of each row (default: %(default)s)")
    parser.add_argument("--size", type=size, default=(256, 256), help="of the images (default: 256x256)")
    parser.add_argument("--batch", type=positive, default=4, help="as of `serve` (default: %(default)s)")
    parser.add_argument("--workers", type=positive, default=1, help="as of `serve` (default: %(default)s)")
    parser.add_argument("--optimize", action="store_true", help="as of `serve`")


def run(args: argparse.Namespace) -> Iterator[Table]:
    """Starts a server and sends images from more and more clients."""
    import cv2

    height, width = args.size
    images = [cv2.imencode(".jpg", photograph(height, width, seed))[1].tobytes() for seed in range(8)]
    command = [sys.executable, "-m", "maskrcnn_ext", "serve", args.model, "--port", "0", "--time-limit", "600"]
    command += ["--batch", str(args.batch), "--workers", str(args.workers), *["--optimize"] * args.optimize]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            address = urlsplit(server.stdout.readline().strip()).netloc
            if not address:
                raise InputError(f"{args.model}: the server did not start")
            for content in images[:2]:  # the first predictions are slower
                _send(address, [content])
            rows = [_measure(address, images, clients, args.requests) for clients in args.clients]
        finally:
            server.terminate()
    yield Table(
        f"Serving {args.model}: JPEGs of {width} x {height}, {args.workers} process(es), batches of up to {args.batch}",
        rows,
        "Each client sends its next image when it has the answer to the last one. Seconds are of an answer.",
    )


def _measure(address: str, images: list[bytes], clients: int, requests: int) -> Row:
    """Returns the measurements of some clients that share the requests."""
    shares = [[images[index % len(images)] for index in range(first, requests, clients)] for first in range(clients)]
    begun = time.perf_counter()
    with ThreadPoolExecutor(clients) as threads:
        answers = [answer for share in threads.map(lambda share: _send(address, share), shares) for answer in share]
    total = time.perf_counter() - begun
    seconds = sorted(seconds for _, seconds in answers)
    statuses = Counter(status for status, _ in answers)
    failed = ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items()) if status != 200)
    return Row(
        plural(clients, "client"),
        values={
            "images/s": len(answers) / total,
            "median s": statistics.median(seconds),
            "95 % s": seconds[int(0.95 * (len(seconds) - 1))],
            "longest s": seconds[-1],
            "errors": failed or "none",
        },
    )


def _send(address: str, images: list[bytes]) -> list[tuple[int, float]]:
    """Sends images one after the other over one connection; returns status and time of each."""
    connection = http.client.HTTPConnection(address, timeout=600)
    answers = []
    for content in images:
        begun = time.perf_counter()
        connection.request("POST", "/predict", content)
        reply = connection.getresponse()
        reply.read()
        answers.append((reply.status, time.perf_counter() - begun))
    connection.close()
    return answers
