"""Annotation files with any single value damaged are read, or refused with an error of one line."""

import contextlib
import copy
import json

import numpy as np
import pytest
from PIL import Image

from maskrcnn_ext import InputError
from maskrcnn_ext.data.formats.bdd100k import read_bdd100k
from maskrcnn_ext.data.formats.labelme import read_labelme
from maskrcnn_ext.data.formats.yolo import read_yolo
from maskrcnn_ext.ops.rle import encode_mask

JUNK = [None, True, 3, -1e9, float("nan"), 10**400, "x", "", [], {}, [[]], {"a": 1}, [None]]
MASK = encode_mask(np.ones((40, 60), bool))
OUTLINE = {"vertices": [[10, 5], [30, 5], [30, 25], [10, 25]], "types": "LCCL", "closed": True}
LABELME = {
    "version": "5.4.1",
    "imagePath": "a.png",
    "imageData": None,
    "imageHeight": 40,
    "imageWidth": 60,
    "shapes": [
        {"label": "a", "points": [[1, 2], [30, 4], [5, 36]], "group_id": 1, "shape_type": "polygon", "flags": {}},
        {"label": "a", "points": [[1, 2], [30, 4]], "group_id": None, "shape_type": "circle", "flags": {}},
        {"label": "b", "points": [[1, 2], [3, 4]], "shape_type": "mask", "mask": "iVBORw0KGgo="},
    ],
}
BDD100K = [
    {
        "name": "a.png",
        "videoName": None,
        "size": {"width": 60, "height": 40},
        "labels": [
            {"id": "1", "category": "car", "attributes": {"crowd": False}, "poly2d": [OUTLINE]},
            {"id": "2", "category": "bus", "rle": {"counts": MASK["counts"], "size": MASK["size"]}},
            {"id": "3", "category": "bus", "box2d": {"x1": 1, "y1": 2, "x2": 3, "y2": 4}},
        ],
    }
]
YOLO = {"path": ".", "train": ["."], "nc": 2, "names": {0: "a", 1: "b"}}


def places(document, path=()):
    """Every path to a value in a document."""
    yield path
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in items:
        yield from places(value, (*path, key))


def spoil(document, path, value):
    if not path:
        return value
    document = copy.deepcopy(document)
    *parents, last = path
    inner = document
    for key in parents:
        inner = inner[key]
    inner[last] = value
    return document


READERS = [
    (LABELME, "a.json", lambda folder: read_labelme(folder)),
    (LABELME, "a.json", lambda folder: read_labelme(folder, folder, classes=["a", "b"])),
    (BDD100K, "labels.json", lambda folder: read_bdd100k(folder / "labels.json", folder)),
    (YOLO, "data.yaml", lambda folder: read_yolo(folder / "data.yaml")),  # JSON is YAML
]


@pytest.mark.parametrize(
    ("document", "name", "read"), READERS, ids=["labelme", "labelme with images", "bdd100k", "yolo"]
)
def test_a_spoilt_value_never_ends_in_a_traceback(document, name, read, tmp_path):
    Image.new("L", (60, 40)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("0 0.5 0.5 0.2 0.2")  # YOLO's labels
    refused = 0
    for path in places(document):
        for value in JUNK:
            (tmp_path / name).write_text(json.dumps(spoil(document, path, value)))
            with contextlib.suppress(InputError):
                try:
                    read(tmp_path)
                except InputError as error:
                    refused += 1
                    assert "\n" not in str(error), (path, value)  # noqa: PT017
                    raise
    assert refused > 40
