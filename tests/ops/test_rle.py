"""RLEs against dense masks and pycocotools, and errors for broken ones."""

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
    check_rle,
    decode_counts,
    decode_rle,
    encode_edges,
    encode_labels,
    encode_mask,
    find_broken_rle,
    pairwise_iou,
    rle_area,
    rle_boundary,
    rle_box,
    rle_boxes,
    segmentation_to_rle,
    with_byte_counts,
    with_text_counts,
)
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


def test_long_runs_need_several_characters():
    mask = np.zeros((3000, 4000), bool)
    mask[:, 1234] = True
    rle = encode_mask(mask)
    assert check_rle(rle, 3000, 4000) == rle
    assert rle_box(rle) == (1234, 0, 1235, 3000)


@few
@given(text=st.text(st.characters(min_codepoint=32, max_codepoint=127), max_size=30))
def test_an_accepted_text_decodes_to_the_image(text):
    rle = {"size": [5, 7], "counts": text}
    try:
        check_rle(rle)
    except ValueError:
        assert find_broken_rle([rle]) == 0
    else:
        assert find_broken_rle([rle]) is None
        assert rle_area(rle) == decode_rle(rle).sum() <= 35


@pytest.mark.parametrize(
    ("counts", "fault"),
    [
        (None, "type NoneType"),
        (7, "type int"),
        ("", "cut off"),
        ("~", "no RLE has the character '~'"),
        (" ", "no RLE has the character ' '"),
        ("P", "cut off"),
        ("PPPPPPPPPPP0", "longer than any image"),
        ("\u2603", "no RLE has the character"),
        ("1@", "a run is negative"),
        (b"11", "add up to 2, not to its 5 x 7 pixels"),
        ([1, -1, 35], "not all whole numbers"),
        ([1.5, 33.5], "not all whole numbers"),
        (["35"], "not all whole numbers"),
        ([], "add up to 0"),
    ],
)
def test_broken_counts_are_refused(counts, fault):
    with pytest.raises(ValueError, match=f"an RLE whose `counts` .*{fault}"):
        check_rle({"size": [5, 7], "counts": counts}, 5, 7)


@pytest.mark.parametrize("size", [None, [5], [5, 0], ["5", "7"], [5.5, 7], 35])
def test_a_broken_size_is_refused(size):
    with pytest.raises(ValueError, match="an RLE of size"):
        check_rle({"size": size, "counts": [35]})


def test_other_values_are_not_rles():
    with pytest.raises(ValueError, match="an RLE of type list"):
        check_rle([[1, 2]])


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


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0, 1))
def test_counts_are_read_as_pycocotools_writes_them(seed, share):
    mask = np.random.default_rng(seed).random((13, 17)) < share
    runs = decode_counts(encode_mask(mask)["counts"])
    values = np.repeat(np.arange(len(runs)) % 2, runs)
    np.testing.assert_array_equal(values.reshape(17, 13).T, mask)


@settings(max_examples=30, deadline=None)
@given(
    masks=st.lists(
        arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=30), elements=st.integers(0, 1)), min_size=1
    ),
    data=st.data(),
)
def test_valid_rles_pass_and_truncated_ones_are_reported(masks, data):
    rles = [encode_mask(mask) for mask in masks]
    assert find_broken_rle(rles) is None
    victim = data.draw(st.integers(0, len(rles) - 1))
    damage = data.draw(
        st.sampled_from([lambda t: t[:-1], lambda t: t + "1", lambda t: t + "P", lambda _: "", lambda t: t + "é"])
    )
    rles[victim] = {**rles[victim], "counts": damage(rles[victim]["counts"])}
    assert find_broken_rle(rles) == victim
    with pytest.raises(ValueError, match="an RLE whose `counts`"):
        check_rle(rles[victim])


def test_rles_are_checked_beyond_the_first_batch():
    rle = encode_mask(np.ones((4, 4)))
    assert find_broken_rle([rle] * 25_000) is None
    assert find_broken_rle([rle] * 21_000 + [{**rle, "size": [4, 5]}] + [rle] * 3_999) == 21_000


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
