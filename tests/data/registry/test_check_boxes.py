"""Boxes that cannot be right are counted, and fractions of the image refused."""

import re

import pytest

from maskrcnn_ext import InputError
from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord
from maskrcnn_ext.data.registry.check_boxes import check_boxes


def data(*boxes):
    return DataSet(["cat"], [ImageRecord("a.png", 7, 40, 60, [Annotation(0, box) for box in boxes])])


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ([(0, 0, 60, 40), (1.5, 2, 61, 41)], ""),
        ([(5, 5, 5, 9)], "1 object without area or outside"),
        ([(60, 5, 70, 9), (5, 40, 9, 50), (-5, 1, 0, 5), (1, 1, 5, 5)], "3 objects without area or outside"),
        (
            [(1, 1, 5, 5)] * 9 + [(50, 5, 70, 9)],
            "1 of 10 boxes leave their image by more than a tenth of their side, such as one of image 7;",
        ),
        ([(-2, 1, 5, 5)], "are they x0, y0, x1, y1"),
        ([(1, 30, 5, 50)] * 2 + [(1, 1, 5, 5)] * 2, "2 of 4 boxes leave .* are they x0, y0, x1, y1"),
    ],
)
def test_boxes_that_leave_their_image_are_counted(caplog, boxes, expected):
    check_boxes(data(*boxes), "mine")
    assert len(caplog.messages) == bool(expected)
    assert re.search(expected, caplog.text)


@pytest.mark.parametrize(
    "boxes",
    [
        [(0.1, 0.2, 0.3, 0.4), (0, 0, 1, 1)],
        [(0.2, 0.3, 1.0, 1.0), (0, 0.5, 1.0, 1.0)],  # all end at the edge of the image
        [(0, 0.5, 1, 1), (0, 0, 1, 0.5)],
        [(0.35, 0.1, 0.35 + 0.65000001, 1.02), (0, 0, 1, 1)],  # rounded, and careless
    ],
)
def test_fractions_of_the_image_are_refused(boxes):
    with pytest.raises(InputError, match="mine: all 2 boxes lie in the first pixel: their coordinates are fractions"):
        check_boxes(data(*boxes), "mine")


def test_small_boxes_in_pixels_are_no_fractions():
    check_boxes(data((0, 0, 1, 1)), "mine")
    check_boxes(data((0.1, 0.2, 0.3, 0.4), (5, 5, 9, 9)), "mine")
    check_boxes(data(), "mine")
