"""Annotation files with any single value damaged are read, or refused with an error of one line."""

import contextlib
import copy
import json

import numpy as np
import pytest
from PIL import Image

from maskrcnn_ext import InputError
from maskrcnn_ext.data.formats.bdd100k import read_bdd100k
from maskrcnn_ext.data.formats.coco_panoptic import read_coco_panoptic
from maskrcnn_ext.data.formats.label_studio import read_label_studio
from maskrcnn_ext.data.formats.labelme import read_labelme
from maskrcnn_ext.data.formats.supervisely import read_supervisely
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
LABEL_STUDIO = [
    {
        "id": 1,
        "data": {"image": "/data/upload/1/a.png"},
        "annotations": [
            {
                "was_cancelled": False,
                "result": [
                    {
                        "type": "polygonlabels",
                        "original_width": 60,
                        "value": {"points": [[1, 2], [30, 4], [5, 36]], "polygonlabels": ["a"]},
                    },
                    {
                        "type": "rectanglelabels",
                        "value": {"x": 1, "y": 1, "width": 9, "height": 9, "rotation": 3, "rectanglelabels": ["b"]},
                    },
                    {"type": "brushlabels", "value": {"format": "rle", "rle": [0, 0, 37, 128], "brushlabels": ["b"]}},
                ],
            }
        ],
    }
]
SUPERVISELY = {
    "size": {"height": 40, "width": 60},
    "objects": [
        {
            "classTitle": "a",
            "geometryType": "polygon",
            "points": {"exterior": [[1, 2], [30, 4], [5, 36]], "interior": [[[8, 8], [9, 8], [8, 9]]]},
        },
        {"classTitle": "b", "geometryType": "rectangle", "points": {"exterior": [[1, 2], [30, 4]], "interior": []}},
        {"classTitle": "b", "geometryType": "bitmap", "bitmap": {"data": "eJw=", "origin": [1, 2]}},
    ],
}
PANOPTIC = {
    "images": [{"id": 1, "file_name": "a.png", "height": 40, "width": 60}],
    "annotations": [
        {"image_id": 1, "file_name": "c.png", "segments_info": [{"id": 1, "category_id": 1, "iscrowd": 0}]}
    ],
    "categories": [{"id": 1, "name": "a", "isthing": 1}],
}
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
    (LABEL_STUDIO, "export.json", lambda folder: read_label_studio(folder / "export.json", folder)),
    (SUPERVISELY, "ds/ann/a.png.json", lambda folder: read_supervisely(folder)),
    ({"classes": [{"title": "a"}, {"title": "b"}]}, "meta.json", lambda folder: read_supervisely(folder)),
    (
        PANOPTIC,
        "panoptic.json",
        lambda folder: read_coco_panoptic(folder / "panoptic.json", folder, segments=folder),
    ),
    (YOLO, "data.yaml", lambda folder: read_yolo(folder / "data.yaml")),  # JSON is YAML
]


@pytest.mark.parametrize(
    ("document", "name", "read"),
    READERS,
    ids=[
        "labelme",
        "labelme with images",
        "bdd100k",
        "label studio",
        "supervisely",
        "supervisely meta",
        "panoptic",
        "yolo",
    ],
)
def test_a_broken_value_never_ends_in_a_traceback(document, name, read, tmp_path):
    Image.new("L", (60, 40)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("0 0.5 0.5 0.2 0.2")  # YOLO's labels
    for part in ("ds/ann", "ds/img"):  # Supervisely's project
        (tmp_path / part).mkdir(parents=True)
    (tmp_path / "meta.json").write_text('{"classes": [{"title": "a"}, {"title": "b"}]}')
    Image.new("L", (60, 40)).save(tmp_path / "ds/img/a.png")
    Image.new("RGB", (60, 40), (1, 0, 0)).save(tmp_path / "c.png")  # a panoptic image
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
    assert refused > (25 if name == "meta.json" else 40)
