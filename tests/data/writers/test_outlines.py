"""Outlines enclose exactly the pixels of a mask."""

import cv2
import numpy as np
import pycocotools.mask as mask_util
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from maskrcnn_ext.data.formats.records import Annotation
from maskrcnn_ext.data.registry.catalog import load_dataset
from maskrcnn_ext.data.writers import find_writer
from maskrcnn_ext.data.writers.outlines import decode, geometry_of_mask, outlines_of_mask
from maskrcnn_ext.ops.rle import encode_mask
from tests.helpers.written_sets import READ, assert_same, make_set


@settings(max_examples=150, deadline=None)
@given(mask=arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=14)))
def test_outlines_enclose_exactly_the_pixels(mask):
    polygons = outlines_of_mask(mask)
    parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0] - 1
    assert len(polygons) == parts
    # By an even-odd rule at the centres of the pixels, which is independent of any rasteriser.
    ys, xs = np.mgrid[: mask.shape[0], : mask.shape[1]] + 0.5
    inside = np.zeros(mask.shape, int)
    for polygon in polygons:
        points = np.reshape(polygon, (-1, 2))
        for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
            if y0 != y1:
                inside += ((y0 > ys) != (y1 > ys)) & (xs < x0 + (ys - y0) * (x1 - x0) / (y1 - y0))
    np.testing.assert_array_equal(inside % 2 == 1, mask)
    if polygons:
        np.testing.assert_array_equal(decode(polygons, *mask.shape), mask)


@pytest.mark.parametrize("format", ["yolo", "labelme"])
def test_parts_holes_and_spills_over_the_edge_survive_as_polygons(tmp_path, format):
    mask = np.zeros((40, 60), bool)
    mask[5:25, 5:25] = True
    mask[10:15, 10:20] = False
    mask[30:35, 40:55] = True
    mask[32, 50] = False
    spill = [[-10.0, 30.0, 20.0, 28.0, 20.0, 60.0]]
    rle = mask_util.merge(mask_util.frPyObjects(spill, 40, 60))
    x, y, w, h = mask_util.toBbox(rle)
    annotations = [Annotation(0, (5, 5, 55, 35), encode_mask(mask)), Annotation(0, (x, y, x + w, y + h), spill)]
    data = make_set(tmp_path, annotations)
    assert not find_writer(format)(data, tmp_path / "out", link=False)
    assert_same(data, load_dataset(READ[format].format(tmp_path / "out")), lowest=1.0)


@settings(max_examples=60, deadline=None)
@given(mask=arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=8)), x=st.integers(0, 3))
def test_geometries_are_valid_and_enclose_the_pixels(mask, x):
    outline = geometry_of_mask(mask, (x, 5))
    assert outline.is_valid
    assert outline.area == mask.sum()
    ys, xs = np.mgrid[: mask.shape[0], : mask.shape[1]] + 0.5
    np.testing.assert_array_equal(shapely.contains_xy(outline, xs + x, ys + 5), mask)
