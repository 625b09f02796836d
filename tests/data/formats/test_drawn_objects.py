"""Parts of an object become one annotation; ignored regions become crowds of each class."""

import zlib
from base64 import b64encode

import cv2
import numpy as np
import pytest

from maskrcnn_ext import InputError
from maskrcnn_ext.data.formats.drawn_objects import DrawnPart, add_object, join_parts, read_patch
from maskrcnn_ext.data.formats.records import Annotation, ImageRecord
from maskrcnn_ext.ops.rle import decode_rle

SQUARE = [1.0, 1, 5, 1, 5, 5, 1, 5]


def test_polygons_and_patches_are_joined_and_cut_at_the_edge():
    patch = np.ones((3, 4), bool)
    joined = join_parts([DrawnPart("a", SQUARE), DrawnPart("b", [], patch, (10, -2))], 8, 12, "x")
    expected = np.zeros((8, 12), bool)
    expected[1:5, 1:5] = expected[0, 10:] = True
    np.testing.assert_array_equal(decode_rle(joined.segmentation), expected)
    assert (joined.box, joined.id) == ((1, 0, 12, 5), "x")


def test_polygons_alone_stay_polygons():
    joined = join_parts([DrawnPart("a", SQUARE), DrawnPart("b", [7.5, 1, 9, 1, 9, 3])], 8, 12)
    assert joined.segmentation == [SQUARE, [7.5, 1, 9, 1, 9, 3]]
    assert joined.box == (1, 1, 9, 5)


def test_objects_outside_or_without_pixels_are_named():
    with pytest.raises(InputError, match="a: 500 is far outside"):
        join_parts([DrawnPart("a", [500.0, 1, 2, 3, 4, 5])], 8, 12)
    with pytest.raises(InputError, match="b: the mask has no pixel"):
        join_parts([DrawnPart("b", [], np.ones((2, 2), bool), (40, 0))], 8, 12)


def test_an_ignored_region_is_a_crowd_of_each_class():
    record = ImageRecord("a.png", 1, 8, 12)
    add_object(record, Annotation(0, (1, 1, 5, 5), [SQUARE]), "__ignore__", ["a", "b"], "here")
    assert [(each.category, each.crowd) for each in record.annotations] == [(0, True), (1, True)]
    assert decode_rle(record.annotations[0].segmentation).sum() == 16
    add_object(record, Annotation(0, (1, 1, 5, 5)), "b", ["a", "b"], "here")
    assert (record.annotations[2].category, record.annotations[2].crowd) == (1, False)
    with pytest.raises(InputError, match="here: class 'c', expected one of a, b"):
        add_object(record, Annotation(0, (1, 1, 5, 5)), "c", ["a", "b"], "here")


def test_patches_are_masks_or_transparency_also_compressed():
    mask = np.array([[0, 1], [1, 1]], np.uint8)
    grey = cv2.imencode(".png", mask * 255)[1].tobytes()
    clear = cv2.imencode(".png", np.dstack([np.full((2, 2, 3), 255, np.uint8), mask]))[1].tobytes()
    for png in (grey, clear):
        np.testing.assert_array_equal(read_patch(b64encode(png).decode(), "here"), mask)
        packed = b64encode(zlib.compress(png)).decode()
        np.testing.assert_array_equal(read_patch(packed, "here", compressed=True), mask)
    colour = b64encode(cv2.imencode(".png", np.zeros((2, 2, 3), np.uint8))[1].tobytes()).decode()
    with pytest.raises(InputError, match="here has 3 channels, expected one"):
        read_patch(colour, "here")
    for broken in (None, "x", b64encode(b"x").decode(), b64encode(grey).decode()):
        with pytest.raises(InputError, match="here is not a PNG in base64"):
            read_patch(broken, "here", compressed=True)
