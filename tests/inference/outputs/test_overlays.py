"""Overlays: objects are drawn where they are, and nothing else changes."""

import cv2
import numpy as np
import pytest
import torch

from maskrcnn_ext.inference.outputs.overlays import draw_overlay
from tests.helpers.predicted_images import HEIGHT, WIDTH, instances, predicted


def test_an_overlay_changes_the_objects_only(image, masks):
    before = image.copy()
    shown = predicted(instances(masks[:1]), image)
    drawn = draw_overlay(shown)
    np.testing.assert_array_equal(image, before)
    changed = (drawn != image).any(axis=2)
    assert changed[masks[0] > 0].all()
    assert not changed[17:24, 17:24].any()  # the hole
    assert not changed[:, 45:].any()


def test_lines_and_letters_grow_with_the_image():
    def painted(side):
        mask = np.zeros((1, side, side), np.uint8)
        mask[0, side // 4 : side // 2, side // 4 : side // 2] = 1
        drawn = draw_overlay(predicted(instances(mask), np.zeros((side, side, 3), np.uint8)))
        colors = drawn.reshape(-1, 3).max(axis=1)
        return (colors == 255).mean()  # outlines and labels are in full colour

    assert painted(3200) == pytest.approx(painted(1600), rel=0.15)


def test_labels_never_hide_one_another_nor_a_small_object():
    masks = np.zeros((40, 400, 400), np.uint8)
    for number, (y, x) in enumerate(np.argwhere(np.ones((5, 8)))):
        masks[number, 100 + 9 * y : 106 + 9 * y, 100 + 9 * x : 106 + 9 * x] = 1
    image = np.zeros((400, 400, 3), np.uint8)
    drawn = draw_overlay(predicted(instances(masks), image))
    near = cv2.dilate(masks.any(axis=0).astype(np.uint8), np.ones((5, 5))) > 0
    assert not drawn[~near].any()  # no label fits six pixels


def test_keypoints_are_drawn_and_boxes_without_masks(image):
    found = instances(np.zeros((1, HEIGHT, WIDTH)), [[10.0, 10.0, 50.0, 35.0]])
    found.remove("pred_masks")
    boxes = draw_overlay(predicted(found, image))
    assert (boxes[30, 10] != image[30, 10]).any()
    assert (boxes[20, 30] == image[20, 30]).all()
    found.pred_keypoints = torch.tensor([[[30.5, 20.5, 1.0]]])
    assert (draw_overlay(predicted(found, image))[20, 30] != image[20, 30]).any()


def test_an_object_with_an_empty_mask_is_drawn_as_its_box(image):
    masks = np.zeros((2, HEIGHT, WIDTH))
    masks[1, 2:6, 2:6] = 1
    drawn = draw_overlay(predicted(instances(masks, [[10.0, 10.0, 50.0, 35.0], [2.0, 2.0, 6.0, 6.0]]), image))
    assert (drawn[30, 10] != image[30, 10]).any()
    assert (drawn[20, 30] == image[20, 30]).all()
    assert (drawn[4, 4] != image[4, 4]).any()
