"""Label images to regions, and RLEs from files, against masks and pycocotools."""

import contextlib

import numpy as np
import pycocotools.mask as mask_util
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from maskrcnn_ext import InputError
from maskrcnn_ext.data.formats.records import annotation_of_mask, encode_mask
from maskrcnn_ext.data.formats.regions import box_of_rle, checked_rle, regions_of

few = settings(max_examples=60, deadline=None)
shapes = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=20)


@few
@given(labels=arrays(np.int32, shapes, elements=st.sampled_from([0, 1, 2, 7, 70000])))
def test_a_region_is_the_box_and_rle_of_its_mask(labels):
    regions = regions_of(labels)
    assert [region.value for region in regions] == [value for value in np.unique(labels) if value]
    for region in regions:
        expected = annotation_of_mask(labels == region.value, 0)
        assert region.box == expected.box
        assert region.segmentation == expected.segmentation  # the very text that pycocotools encodes


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64])
def test_every_type_of_label_image_is_read_whatever_its_order_in_memory(dtype):
    labels = np.zeros((4, 6), dtype)
    labels[1:3, 2:5] = 9
    for stored in (labels, np.asfortranarray(labels), labels[::-1]):
        (region,) = regions_of(stored)
        assert (region.value, region.box) == (9, (2, 1, 5, 3))
    assert regions_of(np.zeros((4, 6), dtype)) == []


@few
@given(mask=arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40)))
def test_an_rle_that_pycocotools_encodes_is_taken(mask):
    rle = encode_mask(mask)
    assert checked_rle(rle["counts"], *mask.shape, "here") == rle
    with pytest.raises(InputError, match="here: the RLE is broken"):
        checked_rle(rle["counts"], mask.shape[0] + 1, mask.shape[1], "here")


def test_long_runs_need_several_letters():
    mask = np.zeros((3000, 4000), bool)
    mask[:, 1234] = True
    assert checked_rle(encode_mask(mask)["counts"], 3000, 4000, "here")["size"] == [3000, 4000]


@few
@given(text=st.text(st.characters(min_codepoint=32, max_codepoint=127), max_size=30))
def test_what_is_taken_decodes_to_the_image(text):
    with contextlib.suppress(InputError):
        rle = checked_rle(text, 5, 7, "here")
        assert encode_mask(mask_util.decode(rle)).keys() == rle.keys()
        assert mask_util.area(rle) == mask_util.decode(rle).sum() <= 35


@pytest.mark.parametrize("counts", [None, 7, "", "~", " ", "P", "PPPPPPPPPPP0", b"11", "\u2603"])
def test_broken_counts_are_refused(counts):
    with pytest.raises(InputError, match="the RLE is"):
        checked_rle(counts, 5, 7, "here")


def test_an_empty_mask_has_no_box():
    with pytest.raises(InputError, match="here: the mask has no pixel"):
        box_of_rle(encode_mask(np.zeros((3, 3), bool)), "here")
