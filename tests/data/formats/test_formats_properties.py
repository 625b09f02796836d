"""Properties of the readers, over arbitrary masks and polygons."""

import json

import cv2
import numpy as np
import pycocotools.mask as mask_util
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from maskrcnn_ext.data.formats.dsb2018 import read_dsb2018
from maskrcnn_ext.data.formats.polygons import box_of_polygons
from maskrcnn_ext.data.formats.via import read_via

few = settings(max_examples=40, deadline=None)
coordinates = st.floats(-20, 80, allow_nan=False, width=32)
polygons = st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=12)


@few
@given(mask=arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24)))
def test_any_mask_is_restored_pixel_by_pixel(mask, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dsb") / "one"
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
        cv2.imwrite(str(folder / part / "one.png"), mask.astype(np.uint8) * 255)
    (record,) = read_dsb2018(folder.parent).images
    assert (record.height, record.width) == mask.shape
    assert len(record.annotations) == mask.any()
    for annotation in record.annotations:
        np.testing.assert_array_equal(mask_util.decode(annotation.segmentation), mask)
        ys, xs = np.nonzero(mask)
        assert annotation.box == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)


@few
@given(points=polygons)
def test_any_polygon_keeps_its_points(points, tmp_path_factory):
    folder = tmp_path_factory.mktemp("via")
    cv2.imwrite(str(folder / "a.png"), np.zeros((48, 64), np.uint8))
    xs, ys = zip(*points, strict=True)
    shape = {"name": "polygon", "all_points_x": xs, "all_points_y": ys}
    entry = {"filename": "a.png", "size": 1, "regions": [{"shape_attributes": shape, "region_attributes": {}}]}
    (folder / "via.json").write_text(json.dumps({"a.png1": entry}))
    (record,) = read_via(folder / "via.json", folder, classes=["thing"]).images
    assert record.annotations[0].segmentation == [[value for point in points for value in point]]


@few
@given(points=polygons)
def test_a_box_is_inside_the_image_and_within_a_pixel_of_the_masks(points):
    polygon = [float(value) for point in points for value in point]
    box = np.array(box_of_polygons([polygon], 48, 64))
    assert (box >= 0).all()
    assert (box <= [64, 48, 64, 48]).all()
    assert (box[:2] <= box[2:]).all()
    mask = mask_util.decode(mask_util.merge(mask_util.frPyObjects([polygon], 48, 64)))
    ys, xs = np.nonzero(mask)
    if len(xs):
        assert np.abs(box - [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]).max() <= 1
