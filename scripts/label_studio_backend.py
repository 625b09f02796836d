"""A trained model as a machine-learning backend of Label Studio (https://labelstud.io/guide/ml): pre-annotations as brush strokes.

    python scripts/label_studio_backend.py output/nuclei --images /data/images --port 9090

Then add http://localhost:9090 as a model in the settings of the project. Its images are found below --images by the last parts of their
URLs; its labelling interface needs <BrushLabels> with the names of the model's classes. The server has no access control: leave it on
localhost, or put it behind a proxy that has.
"""

from __future__ import annotations

import argparse
import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree

from maskrcnn_ext import InputError, Predictor
from maskrcnn_ext.data.formats.label_studio import find_image
from maskrcnn_ext.ops.tool_rle import encode_brush

_LARGEST_REQUEST = 2**26  # bytes


class Backend:
    """Answers the requests of Label Studio."""

    def __init__(self, predictor: Predictor, images: Path, threshold: float) -> None:
        """Takes a loaded model, the folder of the images and the least score of an object."""
        self.predictor, self.images, self.threshold = predictor, images, threshold
        self.version = Path(predictor.weights).name or "maskrcnn_ext"

    def answer(self, path: str, request: Any) -> dict[str, Any]:
        """Returns the answer to a request; an InputError for a fault of the request."""
        if not isinstance(request, dict) or not isinstance(request.get("tasks", []), list):
            raise InputError("the request is no mapping with a list of `tasks`")
        if path in ("/", "/health"):
            return {"status": "UP", "model_class": "maskrcnn_ext"}
        if path == "/is_training":
            return {"is_training": False}
        if path == "/setup":
            return {"model_version": self.version}
        if path != "/predict":
            raise InputError(f"no such request: {path}")
        try:
            tag = ElementTree.fromstring(request.get("label_config") or "<View/>").find(".//BrushLabels")
        except ElementTree.ParseError as error:
            raise InputError(f"the labelling interface is not XML: {error}") from None
        if tag is None:
            raise InputError("the labelling interface has no <BrushLabels>")
        place = {"from_name": tag.get("name"), "to_name": tag.get("toName")}
        results = [self.predict(task, place) for task in request.get("tasks", [])]
        return {"results": results, "model_version": self.version}

    def predict(self, task: dict[str, Any], place: dict[str, Any]) -> dict[str, Any]:
        """Returns the prediction of a task."""
        if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
            raise InputError(f"a task has no `data`: {task!r:.100}")
        file = find_image(task["data"], self.images, f"task {task.get('id')}")
        found = self.predictor(file, threshold=self.threshold)
        height, width = found.image_size
        regions = []
        for index, (name, score) in enumerate(zip(found.class_names, found.scores.tolist(), strict=True)):
            value = {"format": "rle", "rle": encode_brush(found.pred_masks[index].numpy()), "brushlabels": [name]}
            size = {"original_width": width, "original_height": height, "image_rotation": 0}
            regions.append({"id": str(index), "type": "brushlabels", **place, **size, "value": value, "score": score})
        mean = sum(region["score"] for region in regions) / max(len(regions), 1)
        return {"model_version": self.version, "score": mean, "result": regions}


def serve(backend: Backend, port: int) -> HTTPServer:
    """Returns a server on localhost; ``serve_forever`` starts it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply({})

        def do_POST(self) -> None:
            length = min(int(self.headers.get("Content-Length") or 0), _LARGEST_REQUEST)
            try:
                self._reply(json.loads(self.rfile.read(length) or "{}"))
            except ValueError as error:
                self._send(400, {"error": f"not JSON: {error}"})

        def _reply(self, request: dict[str, Any]) -> None:
            try:
                self._send(200, backend.answer(urlsplit(self.path).path, request))
            except InputError as error:
                self._send(400, {"error": str(error)})

        def _send(self, status: int, content: dict[str, Any]) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return HTTPServer(("127.0.0.1", port), Handler)


def main() -> int:
    """Loads the model, and answers until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="folder of a run, or a config")
    parser.add_argument("--images", type=Path, required=True, help="the folder of the project's images")
    parser.add_argument("--threshold", type=float, default=0.5)
    parser.add_argument("--port", type=int, default=9090)
    args = parser.parse_args()
    server = serve(Backend(Predictor(args.run), args.images, args.threshold), args.port)
    print(f"http://localhost:{server.server_port}")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
