"""Repaired polygons are valid, are inside the image and cover the same pixels."""

import numpy as np
import pycocotools.mask as mask_util
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn_ext.data.check.outlines import fix_polygons

points = st.lists(st.tuples(st.floats(-30, 90), st.floats(-30, 90)), min_size=3, max_size=9)


@settings(max_examples=60, deadline=None)
@given(points=points)
def test_fixed_polygons_are_valid_inside_and_cover_the_same_area(points):
    outline = np.array(points)
    repaired = fix_polygons([outline], 48, 64)
    shapes = [shapely.Polygon(np.array(polygon).reshape(-1, 2)) for polygon in repaired]
    frame = shapely.box(0, 0, 64, 48)
    expected = shapely.make_valid(shapely.Polygon(outline)).intersection(frame)
    assert all(shape.is_valid for shape in shapes)
    assert all(frame.buffer(1e-6).covers(shape) for shape in shapes)
    # Slivers of less than half a square pixel are left out.
    assert shapely.union_all(shapes).symmetric_difference(expected).area <= 0.5 * 30


def test_a_hole_is_cut_not_filled():
    outer = [0, 0, 20, 0, 20, 20, 0, 20, 0, 0]
    inner = [5, 5, 5, 15, 15, 15, 15, 5, 5, 5]  # drawn in one line with the outer
    repaired = fix_polygons([np.array(outer + inner, float).reshape(-1, 2)], 30, 30)
    assert len(repaired) > 1
    mask = mask_util.decode(mask_util.merge(mask_util.frPyObjects(repaired, 30, 30)))
    assert mask[10, 10] == 0
    assert mask[2, 2] == 1
    assert abs(int(mask.sum()) - 300) < 20
