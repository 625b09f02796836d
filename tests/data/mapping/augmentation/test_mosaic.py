"""Mosaics of four images."""

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn_ext import InputError
from maskrcnn_ext.data.mapping.augmentation import MosaicMapper
from tests.helpers.mixed_samples import RECTANGLES, by_name, check_sample, make_sample, with_unlabelled


@settings(max_examples=25, deadline=None)
@given(RECTANGLES, RECTANGLES, st.integers(0, 1000))
def test_a_mosaic_shows_parts_of_four_images(own, theirs, seed):
    samples = {"a": make_sample(own, 50, size=(25, 20)), "b": make_sample(theirs, 100, size=(31, 44))}
    # Interpolation mixes colours at edges: images of one colour show the tiles.
    for sample in samples.values():
        sample["image"][:] = sample["image"][0, -1, -1] // 50 * 50 + 5
    mapper = MosaicMapper(mapper=by_name(samples), dataset=[{"name": "b"}], probability=1)
    np.random.seed(seed)
    done = mapper({"name": "a"})
    check_sample(done)
    assert done["image"].shape == (3, 25, 20)
    assert done["image"].unique().tolist() == [55, 105], "no pixel is left without an image"
    own_tile = done["image"][0] == 55
    assert 0.3 * 0.3 * 500 * 0.8 < own_tile.sum() < 0.7 * 0.7 * 500 * 1.2


def test_keypoints_of_a_mosaic_follow_their_objects():
    sample = make_sample([(0, 20, 0, 30)], 50, keypoints=[[[15.0, 10.0, 2.0], [0.0, 0.0, 1.0]]])
    mapper = MosaicMapper(mapper=lambda _: copy.deepcopy(sample), dataset=[{}], probability=1, center=(0.5, 0.5))
    np.random.seed(0)
    points = mapper({})["instances"].gt_keypoints.tensor
    assert points[:, 0].tolist() == [[7.5, 5, 2], [22.5, 5, 2], [7.5, 15, 2], [22.5, 15, 2]]


def test_a_center_that_decreases_is_an_error():
    with pytest.raises(InputError, match=r"center is \(0\.7, 0\.3\), expected two increasing numbers"):
        MosaicMapper(mapper=lambda _: None, dataset=[{}], center=(0.7, 0.3))


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1)])
def test_an_image_of_one_pixel_in_height_or_width_has_a_mosaic(size):
    sample = make_sample([(0, *size[:1], 0, size[1])], 50, size=size)
    done = MosaicMapper(mapper=lambda _: copy.deepcopy(sample), dataset=[{}], probability=1).mix(sample)
    check_sample(done)
    assert done["image"].unique().tolist() == [51]


def test_a_mosaic_has_the_ignore_regions_of_its_tiles():
    whole = with_unlabelled(make_sample([], 50), region=(0, 20, 0, 30), labelled=[0, 1])
    plain = make_sample([(0, 20, 0, 15)], 100)
    half = with_unlabelled(make_sample([(0, 20, 0, 15)], 150), labelled=[1, 2])
    drawn = iter([plain, half, plain])
    mapper = MosaicMapper(
        mapper=lambda record: whole if record["first"] else next(drawn), dataset=[{"first": False}], probability=1
    )
    np.random.seed(0)
    done = mapper({"first": True})
    found = done["instances"].gt_unlabelled
    assert len(found) == len(done["instances"]) == 3
    assert np.array_equal(found.region.mask.numpy(), done["image"][0].numpy() == 50)
    assert found.labelled_classes.tolist() == [1], "labelled in all images"
