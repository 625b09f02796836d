"""Matterport's resizing and padding."""

import numpy as np
import pytest
from detectron2.data import transforms as T
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from maskrcnn_ext.data.mapping.augmentation.resizing import BilinearResize, Letterbox
from maskrcnn_ext.errors import InputError

BILINEAR = Image.Resampling.BILINEAR


@pytest.mark.parametrize(
    ("old", "new"), [((37, 53), (64, 92)), ((300, 200), (120, 77)), ((1, 1), (5, 3)), ((9, 9), (9, 9))]
)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_pixels_are_those_of_scikit_image(old, new, dtype):
    image = np.random.default_rng(0).integers(0, 255, (*old, 3)).astype(dtype)
    resized = BilinearResize(*old, *new, BILINEAR).apply_image(image)
    zoom = (new[0] / old[0], new[1] / old[1], 1)
    # What scikit-image's resize(order=1, mode="constant") calls.
    expected = ndimage.zoom(image.astype(float), zoom, order=1, mode="grid-constant", grid_mode=True)
    assert resized.dtype == dtype
    error = 1e-6 if dtype == np.uint8 else 1e-4
    # Whole numbers are what is cut off, and may have been less by a rounding error.
    cut = np.floor if dtype == np.uint8 else np.asarray
    assert (cut(expected - error) <= resized).all()
    assert (resized <= cut(expected + error)).all()


def test_masks_are_resized_to_the_nearest_pixel_and_boxes_by_their_share():
    resize = BilinearResize(4, 8, 8, 24, BILINEAR)
    mask = np.zeros((4, 8), np.uint8)
    mask[1:3, 2:6] = 1
    expected = np.zeros((8, 24), np.uint8)
    expected[2:6, 6:18] = 1
    assert np.array_equal(resize.apply_segmentation(mask), expected)
    assert resize.apply_box(np.array([[2.0, 1, 6, 3]])).tolist() == [[6, 2, 18, 6]]
    assert resize.inverse().apply_box(np.array([[6.0, 2, 18, 6]])).tolist() == [[2, 1, 6, 3]]


@pytest.mark.parametrize(
    ("arguments", "shape", "expected"),
    [
        ((800, 1024), (480, 640), (768, 1024)),  # the longer side counts
        ((800, 1024), (600, 640), (800, 853)),
        ((800, 1024), (2000, 1000), (1024, 512)),
        ((800, 1024), (900, 950), (900, 950)),  # never smaller than it needs to be
        ((800,), (480, 640), (800, 1067)),  # pad64
        ((800, None, 2.0), (480, 640), (960, 1280)),
        ((None,), (77, 55), (77, 55)),  # none
    ],
)
def test_sizes_are_matterports(arguments, shape, expected):
    transform = Letterbox(*arguments).get_transform(np.zeros((*shape, 3), np.uint8))
    assert (transform.new_h, transform.new_w) == expected


def test_padding_surrounds_the_image_and_moves_the_ground_truth():
    image = T.AugInput(
        np.full((30, 60, 3), 7, np.uint8), boxes=np.array([[0.0, 0, 60, 30]]), sem_seg=np.ones((30, 60), np.uint8)
    )
    Letterbox(64, 128, pad="square")(image)
    assert image.image.shape == (128, 128, 3)
    assert (image.image[:32] == 0).all()
    assert (image.image[96:] == 0).all()
    assert (image.image[40:90, 10:110] == 7).all()
    assert image.boxes.tolist() == [[0, 32, 128, 96]]
    assert image.sem_seg.sum() == 64 * 128


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 150), st.integers(1, 150), st.sampled_from([("square", 128), ("pad64", None)]))
def test_padded_sizes_are_multiples_of_64_and_boxes_are_restored(height, width, mode):
    pad, max_dim = mode
    transform = Letterbox(32, max_dim, pad=pad).get_transform(np.zeros((height, width, 3), np.uint8))
    padded = transform.apply_image(np.zeros((height, width, 3), np.uint8))
    assert all(side % 64 == 0 for side in padded.shape[:2])
    box = np.array([[0.0, 0, width, height]])
    assert np.allclose(transform.inverse().apply_box(transform.apply_box(box)), box, atol=1e-3)


@pytest.mark.parametrize("arguments", [{"pad": "64"}, {"pad": "square"}, {"pad": True}])
def test_unknown_padding_is_an_error(arguments):
    with pytest.raises(InputError, match="expected null, pad64, or square with a max_dim"):
        Letterbox(64, **arguments)
