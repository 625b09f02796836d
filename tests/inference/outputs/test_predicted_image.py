"""An image with its objects: colours, windows of masks and boxes, and the check of its size."""

import numpy as np
import pytest
import torch

from maskrcnn_ext import InputError
from tests.helpers.predicted_images import HEIGHT, WIDTH, instances, predicted


def test_tracks_keep_their_colour_when_scores_change(masks, image):
    found = instances(masks[:2])
    found.track_ids = torch.tensor([7, 3])
    swapped = found[torch.tensor([1, 0])]
    assert predicted(found, image).colors == predicted(swapped, image).colors[::-1]


def test_an_image_of_another_size_is_refused(image, masks):
    with pytest.raises(InputError, match="pixels"):
        _ = predicted(instances(masks), image[:-1]).image


def test_mask_windows_are_tight_and_hold_the_mask(image, masks):
    for window, mask in zip(predicted(instances(masks), image).masks(), masks, strict=True):
        assert window.mask.any(axis=0).all() | window.mask.any(axis=1).all()
        restored = np.zeros_like(mask)
        window.crop(restored)[:] = window.mask
        np.testing.assert_array_equal(restored, mask)


def test_box_windows_are_rounded_outward_and_clipped(image):
    found = instances(np.ones((1, HEIGHT, WIDTH)), [[-3.0, 4.2, 7.5, HEIGHT + 5.0]])
    (window,) = predicted(found, image).box_windows()
    assert (window.x, window.y, window.mask.shape) == (0, 4, (HEIGHT - 4, 8))
    found.remove("pred_masks")
    (box,) = predicted(found, image).masks()
    assert (box.x, box.y, box.mask.shape) == (0, 4, (HEIGHT - 4, 8))
    assert box.mask.all()
