"""Checks of RLEs: what pycocotools writes passes, and broken ones are errors that name the fault."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from maskrcnn_ext.ops.rle import decode_rle, encode_mask, rle_area, rle_box
from maskrcnn_ext.ops.rle_checks import check_rle, decode_counts, find_broken_rle

few = settings(max_examples=60, deadline=None)


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
