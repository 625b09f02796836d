"""RLEs against dense masks and pycocotools."""

import re

import cv2
import numpy as np
import pycocotools.mask as mask_util
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.rle import (
    decode_rle,
    encode_edges,
    encode_labels,
    encode_mask,
    pairwise_iou,
    rle_area,
    rle_boundary,
    rle_box,
    rle_boxes,
    segmentation_to_rle,
    with_byte_counts,
    with_text_counts,
)
from maskrcnn_ext.ops.rle_checks import check_rle, decode_counts
from tests.conftest import ROOT

few = settings(max_examples=60, deadline=None)
shapes = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=20)


@few
@given(labels=arrays(np.int32, shapes, elements=st.sampled_from([0, 1, 2, 7, 70000])))
def test_an_entry_has_the_box_and_rle_of_its_mask(labels):
    found = encode_labels(labels)
    assert [one.value for one in found] == [value for value in np.unique(labels) if value]
    for one in found:
        expected = encode_mask(labels == one.value)
        assert one.box == rle_box(expected)
        assert one.rle == expected  # the very text that pycocotools encodes


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64])
def test_every_type_of_label_image_is_read_whatever_its_order_in_memory(dtype):
    labels = np.zeros((4, 6), dtype)
    labels[1:3, 2:5] = 9
    for stored in (labels, np.asfortranarray(labels), labels[::-1]):
        (one,) = encode_labels(stored)
        assert (one.value, one.box) == (9, (2, 1, 5, 3))
    assert encode_labels(np.zeros((4, 6), dtype)) == []


@few
@given(mask=arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40)))
def test_every_form_of_a_mask_decodes_to_it(mask):
    rle, size = encode_mask(mask), list(mask.shape)
    uncompressed = {"size": size, "counts": decode_counts(rle["counts"]).tolist()}
    for form in (rle, with_byte_counts(rle), uncompressed, mask):
        np.testing.assert_array_equal(decode_rle(segmentation_to_rle(form, *size)), mask)
    for form in (rle, with_byte_counts(rle), uncompressed):
        assert with_text_counts(check_rle(form, *size)) == rle
    assert rle_area(rle) == mask.sum()
    with pytest.raises(ValueError, match=r"an RLE of size .*, but its image is"):
        check_rle(rle, size[0] + 1, size[1])


def test_polygons_are_rasterised_as_pycocotools_does():
    polygons = [[1.5, 1, 9, 2, 6, 8.25], [12, 3, 15, 3, 15, 7, 12, 7]]
    expected = mask_util.merge(mask_util.frPyObjects(polygons, 10, 16))
    assert segmentation_to_rle(polygons, 10, 16) == expected
    # pycocotools would take a first "polygon" of 4 numbers for a box.
    assert segmentation_to_rle([[3, 3, 3, 7], *polygons], 10, 16) == expected


def test_a_far_vertex_takes_no_memory():
    rle = segmentation_to_rle([[0, 0, 1e9, 0, 1e9, 1e9, 0, 1e9]], 8, 9)
    assert rle_area(rle) == 72


def test_masks_that_cannot_be_drawn_are_errors_not_crashes():
    zigzag = [v for i in range(100_000) for v in ((0, 0) if i % 2 else (500, 400))]
    with pytest.raises(
        InputError, match="an outline of 100,000 points is 50,000,000 pixels long, more than 10,000,000"
    ):
        segmentation_to_rle([zigzag], 400, 500)
    with pytest.raises(InputError, match="pixels long"):
        segmentation_to_rle([[0, 0, 3e7, 0, 3e7, 100]], 100, 40_000_000)
    with pytest.raises(InputError, match="an image of 100000 x 100000 has more pixels than a mask holds"):
        segmentation_to_rle([[0, 0, 5, 0, 5, 5]], 100_000, 100_000)
    dense = [v for i in range(100_000) for v in (i / 1000, 50 * (i % 2) / 100_000)]
    assert rle_area(segmentation_to_rle([dense], 100, 100)) == 0


@pytest.mark.parametrize("segmentation", [[], [[1, 2, 3, 4]], np.zeros((4, 5))])
def test_a_segmentation_without_area_is_an_empty_mask(segmentation):
    rle = segmentation_to_rle(segmentation, 4, 5)
    assert (rle["size"], rle_area(rle), rle_box(rle)) == ([4, 5], 0, (0, 0, 0, 0))


def test_segments_that_touch_become_one_run():
    assert encode_edges(np.array([1, 3, 3, 4]), (2, 3)) == with_byte_counts(encode_mask([[0, 1, 0], [1, 1, 0]]))


def test_overlaps_of_masks_and_boxes():
    masks = [encode_mask(np.eye(4)), encode_mask(np.ones((4, 4)))]
    np.testing.assert_allclose(pairwise_iou(masks, masks), [[1, 0.25], [0.25, 1]])
    np.testing.assert_allclose(pairwise_iou(masks, masks, [True, True]), [[1, 1], [0.25, 1]])
    boxes = np.array([[0.0, 0, 2, 2], [1, 0, 2, 2]])
    np.testing.assert_allclose(pairwise_iou(boxes, boxes), [[1, 1 / 3], [1 / 3, 1]])
    assert pairwise_iou([], masks).shape == (0, 2)
    assert pairwise_iou(masks, []).shape == (2, 0)
    assert rle_boxes([]).shape == (0, 4)


def disc(radius, center=(60, 60), size=(120, 160)):
    return cv2.circle(np.zeros(size, np.uint8), center, radius, 1, -1)


@pytest.mark.parametrize("mask", [disc(30), disc(40, (5, 5)), np.ones((120, 160), np.uint8), disc(0), disc(1)])
def test_the_band_has_the_pixels_within_the_distance_of_the_outside(mask):
    distance = 4  # 2 % of the diagonal of 120 x 160
    outside = cv2.distanceTransform(np.pad(mask, 1), cv2.DIST_C, 3)[1:-1, 1:-1]
    np.testing.assert_array_equal(decode_rle(rle_boundary(encode_mask(mask))), mask & (outside <= distance))


def test_no_other_module_imports_the_library():
    pattern = re.compile(r"^\s*(from|import) pycocotools\b.*\bmask\b", re.MULTILINE)
    found = [path.name for path in (ROOT / "maskrcnn_ext").rglob("*.py") if pattern.search(path.read_text())]
    assert found == ["rle.py"]
