"""Every kind of output handles predictions without objects and objects without pixels; unknown kinds are refused."""

import json

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from maskrcnn_ext import InputError
from maskrcnn_ext.inference.outputs import OUTPUTS, find_output
from tests.helpers.predicted_images import HEIGHT, WIDTH, decode, instances, predicted

KINDS = [kind for kind in OUTPUTS if kind != "geopackage"]  # of images without map coordinates


def check_nothing_is_shown(kind, files, image):
    if kind in ("crops", "cutouts"):
        assert files == {}
    elif kind == "polygons":
        assert json.loads(files["a/b.geojson"]) == {"type": "FeatureCollection", "features": []}
    elif kind == "labels":
        assert not decode(files["a/b.png"]).any()
    elif kind == "overlays":
        np.testing.assert_array_equal(decode(files["a/b.png"]), image)
    elif kind == "table":
        assert len(files["a/b.csv"].splitlines()) == 1, "the titles of the columns"
    else:
        assert (np.ptp(decode(files["a/b.png"]), axis=2) == 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_no_objects(kind, image):
    files = find_output(kind)(predicted(instances(np.zeros((0, HEIGHT, WIDTH))), image))
    check_nothing_is_shown(kind, files, image)


@pytest.mark.parametrize("kind", KINDS)
def test_objects_without_pixels(kind, image):
    """Empty masks: crops and overlays show the boxes all the same."""
    files = find_output(kind)(predicted(instances(np.zeros((2, HEIGHT, WIDTH)), [[5.0, 5.0, 9.0, 9.0]] * 2), image))
    if kind == "crops":
        assert len(files) == 2
        for content in files.values():
            np.testing.assert_array_equal(decode(content), image[5:9, 5:9])
    elif kind == "cutouts":
        assert [decode(content)[..., 3].any() for content in files.values()] == [False] * 2
    elif kind == "overlays":
        assert (decode(files["a/b.png"])[5, 5:10] != image[5, 5:10]).any(axis=1).all()
    else:
        check_nothing_is_shown(kind, files, image)


@pytest.mark.parametrize("kind", KINDS)
def test_no_objects_and_no_mask_field(kind, image):
    none = Instances(
        (HEIGHT, WIDTH), pred_boxes=Boxes(torch.zeros(0, 4)), scores=torch.zeros(0), pred_classes=torch.zeros(0).long()
    )
    check_nothing_is_shown(kind, find_output(kind)(predicted(none, image)), image)


def test_unknown_kinds_are_refused():
    with pytest.raises(InputError, match="expected some of overlays, splash"):
        find_output("overlay")
