"""The DCT codec and the patches: golden values, inverses, and what they keep of real masks."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn_ext.ops.dct import (
    BACKGROUND,
    FOREGROUND,
    MIXED,
    DCTCodec,
    dct_basis,
    fill_patches,
    from_patches,
    patch_kinds,
    to_patches,
    zigzag,
)


def test_zigzag_begins_as_in_jpeg():
    # ITU-T T.81, figure 5: the sequence of an 8 x 8 block, written as (row, column).
    expected = [(0, 0), (0, 1), (1, 0), (2, 0), (1, 1), (0, 2), (0, 3), (1, 2), (2, 1), (3, 0), (4, 0)]
    assert zigzag(11) == expected


def test_300_coefficients_are_24_antidiagonals():
    assert {row + column for row, column in zigzag(300)} == set(range(24))


def test_the_basis_is_orthonormal_and_opencvs():
    basis = dct_basis(8, 8)
    torch.testing.assert_close(basis @ basis.T, torch.eye(8))
    signal = np.random.default_rng(0).random((8, 1)).astype(np.float32)
    np.testing.assert_allclose(basis.numpy() @ signal, cv2.dct(signal), atol=1e-6)


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_encode_takes_opencvs_coefficients_in_zigzag_order(seed):
    mask = (np.random.default_rng(seed).random((16, 16)) > 0.5).astype(np.float32)
    spectrum = cv2.dct(mask)
    vector = DCTCodec(16, 30).encode(torch.as_tensor(mask))
    np.testing.assert_allclose(vector.numpy(), [spectrum[cell] for cell in zigzag(30)], atol=1e-5)


def test_decode_is_the_projection_on_the_low_frequencies():
    codec = DCTCodec(32, 60)
    vectors = torch.randn(2, 3, 60)
    masks = codec.decode(vectors)
    assert masks.shape == (2, 3, 32, 32)
    torch.testing.assert_close(codec.encode(masks), vectors, atol=1e-5, rtol=0)


def test_all_coefficients_lose_nothing():
    mask = (torch.rand(8, 8) > 0.5).float()
    vectors = torch.tensor([cv2.dct(mask.numpy())[cell] for cell in zigzag(36)])
    torch.testing.assert_close(DCTCodec(8, 36).encode(mask), vectors, atol=1e-5, rtol=0)
    smooth = torch.ones(8, 8)
    torch.testing.assert_close(DCTCodec(8, 1).decode(DCTCodec(8, 1).encode(smooth)), smooth)


def test_too_many_coefficients():
    with pytest.raises(ValueError, match="masks of 8 px have 8"):
        DCTCodec(8, 37)


def test_a_codec_leaves_nothing_in_checkpoints():
    assert DCTCodec(16, 30).state_dict() == {}


def test_patches_and_back():
    masks = torch.rand(3, 32, 32)
    patches = to_patches(masks, 8)
    assert patches.shape == (3, 4, 4, 8, 8)
    torch.testing.assert_close(patches[1, 2, 3], masks[1, 16:24, 24:32])
    torch.testing.assert_close(from_patches(patches), masks)


def test_kinds_and_filling():
    mask = torch.zeros(1, 4, 6)
    mask[:, :2, 2:4] = 1
    mask[:, :2, 5] = 1
    patches = to_patches(mask, 2)
    kinds = patch_kinds(patches)
    assert kinds.tolist() == [[[BACKGROUND, FOREGROUND, MIXED], [BACKGROUND, BACKGROUND, BACKGROUND]]]
    # Whatever the vectors of the others decode to, only mixed patches show it.
    noise = torch.where((kinds == MIXED)[..., None, None], patches, torch.rand_like(patches))
    torch.testing.assert_close(from_patches(fill_patches(kinds, noise)), mask)
