"""A detector without a network, which starts at once, and an ASGI client: for tests of the server around a model."""

import asyncio
import io
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from maskrcnn_ext.errors import InputError

# Widths of images on which the detector fails.
KILLS, HANGS, RAISES = 13, 17, 19


class BrightDetector:
    """Finds the pixels above 127 as one object. Some images end it, by their width."""

    name, classes = "bright", ["bright"]

    def __init__(self, log=None):
        self.log = log

    def pixels(self, content):
        try:
            return np.asarray(Image.open(io.BytesIO(content)).convert("L"))
        except OSError as error:
            raise InputError(f"cannot be read ({error})") from error

    def detect(self, images):
        if self.log:
            with self.log.open("a") as stream:
                stream.write(f"{len(images)}\n")
        widths = {image.shape[1] for image in images}
        if KILLS in widths:
            os._exit(9)
        if HANGS in widths:
            time.sleep(600)
        if RAISES in widths:
            raise RuntimeError("out of\nmemory")
        return [[_object(image)] for image in images]


def _object(image):
    from maskrcnn_ext.ops.rle import encode_mask, with_text_counts

    return {
        "category_id": 1,
        "class": "bright",
        "score": float(image.max()) / 255,
        "bbox": [0, 0, 1, 1],
        "segmentation": with_text_counts(encode_mask(image > 127)),
    }


@dataclass(frozen=True)
class Source:
    """Loads the detector; fails once `stop` exists."""

    stop: Path | None = None
    log: Path | None = None

    def load(self):
        if self.stop and self.stop.exists():
            raise InputError("model.pth: no such file")
        return BrightDetector(self.log)


def png(width=8, height=6, value=255):
    buffer = io.BytesIO()
    Image.fromarray(np.full((height, width), value, np.uint8)).save(buffer, "png")
    return buffer.getvalue()


async def ask(app, path, *parts, method="GET", query="", headers=(), hang_up=False, slow=False):
    """Returns the status and the body of a request whose body comes in parts; then the client waits, hangs up, or sends no more."""
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    if hang_up:
        messages.append({"type": "http.disconnect"})
    elif not slow:
        messages.append({"type": "http.request", "body": b"", "more_body": False})
    sent = []

    async def receive():
        return messages.pop(0) if messages else await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in headers],
        "http_version": "1.1",
        "scheme": "http",
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 1),
    }
    await app(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])
