"""Splash, crops, cutouts and label images hold exactly the pixels of the objects."""

import dataclasses

import numpy as np
import pytest
import torch
from detectron2.structures import Instances
from pycocotools import mask as mask_util

from maskrcnn_ext.data.registry.classes import Classes
from maskrcnn_ext.inference.outputs import find_output
from maskrcnn_ext.inference.outputs.images import crops
from maskrcnn_ext.ops.rle_masks import RLEMasks
from tests.helpers.predicted_images import HEIGHT, WIDTH, decode, instances, only, predicted


def test_labels_number_the_objects_and_the_highest_score_is_on_top(image, masks):
    labels = decode(only(find_output("labels")(predicted(instances(masks), image)), "a/b.png"))
    assert labels.dtype == np.uint16
    expected = np.zeros((HEIGHT, WIDTH))
    for number in (3, 2, 1):
        expected[masks[number - 1] > 0] = number
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.slow
def test_more_objects_than_16_bits_can_number_make_a_32_bit_tiff(image):
    masks = np.zeros((1, 300, 300), np.uint8)
    found = instances(masks)
    pixels = [mask_util.frPyObjects({"size": [300, 300], "counts": [i, 1, 89999 - i]}, 300, 300) for i in range(70000)]
    many = Instances((300, 300), pred_masks=RLEMasks(pixels, (300, 300)), scores=torch.ones(70000))
    labels = decode(only(find_output("labels")(predicted(many, image)), "a/b.tif"))
    assert labels.ravel(order="F").tolist() == [*range(1, 70001), *[0] * 20000]
    assert len(find_output("labels")(predicted(found, image))) == 1


def test_splash_keeps_the_colours_of_objects_only(image, masks):
    splash = decode(only(find_output("splash")(predicted(instances(masks), image)), "a/b.png"))
    inside = masks.any(axis=0)
    np.testing.assert_array_equal(splash[inside], image[inside])
    assert (splash[~inside] == splash[~inside][:, :1]).all()
    assert splash[~inside].std() > 10


def test_crops_are_the_boxes_and_cutouts_have_the_mask_as_alpha(image, masks):
    boxes = [[7.6, 7.2, 32.4, 33.0], [25.0, 10.0, 50.0, 30.0], [58.5, 38.5, 61.0, 44.0]]
    shown = predicted(instances(masks, boxes), image)
    crops, cutouts = find_output("crops")(shown), find_output("cutouts")(shown)
    names = ["a/b/001_cat_dog_0.90.png", "a/b/002_b_0.75.png", "a/b/003_cat_dog_0.60.png"]
    assert list(crops) == list(cutouts) == names
    places = [np.s_[7:33, 7:33], np.s_[10:30, 25:50], np.s_[38:40, 58:60]]
    for name, place, mask in zip(names, places, masks, strict=True):
        np.testing.assert_array_equal(decode(crops[name]), image[place])
        cutout = decode(cutouts[name])
        np.testing.assert_array_equal(cutout[..., :3], image[place])
        np.testing.assert_array_equal(cutout[..., 3], 255 * mask[place])


def test_long_class_names_are_shortened_in_file_names(image, masks):
    found = predicted(instances(masks), image)
    found = dataclasses.replace(found, classes=Classes(("\u732b" * 200, "b"), (1, 2)))
    names = [name.split("/")[-1] for name in crops(found)]
    assert max(len(name.encode()) for name in names) <= 255
    assert "~" in names[0]
    assert names[1] == "002_b_0.75.png"
