"""Cached images give the same samples bit for bit, and those decoded at a reduced scale nearly the same."""

import os

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from PIL import Image

from maskrcnn_ext import InputError
from maskrcnn_ext.data.images.photos import read_reduced
from maskrcnn_ext.data.mapping.mapper import SafeMapper

SMALLER = [T.ResizeShortestEdge([32, 40], 100, "choice"), T.RandomFlip()]
RANGE = [T.ResizeShortestEdge([40, 400], 1000), T.RandomFlip()]


pytestmark = pytest.mark.usefixtures("own_image_caches")


@pytest.fixture
def record(tmp_path):
    """A photograph of 96 x 128 pixels with one object."""
    path = tmp_path / "photo.jpg"
    smooth = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(smooth).resize((128, 96), Image.Resampling.BICUBIC).save(path, quality=95)
    polygon = [10.0, 10, 60, 10, 60, 50, 10, 50]
    thing = {"bbox": [10, 10, 60, 50], "bbox_mode": 0, "category_id": 0, "segmentation": [polygon]}
    return {"file_name": str(path), "image_id": 1, "height": 96, "width": 128, "annotations": [thing]}


def samples(record, augmentations, **settings):
    mapper = SafeMapper(True, augmentations=augmentations, image_format="BGR", use_instance_mask=True, **settings)
    found = []
    for seed in range(6):
        np.random.seed(seed)
        found.append(mapper(record))
    return mapper, found


def assert_equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        assert torch.equal(one["image"], other["image"])
        assert torch.equal(one["instances"].gt_boxes.tensor, other["instances"].gt_boxes.tensor)
        for a, b in zip(one["instances"].gt_masks, other["instances"].gt_masks, strict=True):
            np.testing.assert_array_equal(a, b)


def kept(mapper):
    return sorted(np.load(path).shape[:2] for path in mapper.reader.cache.folder.glob("*.npy"))


@pytest.mark.parametrize("kind", ["ram", "disk"])
@pytest.mark.parametrize(
    ("augmentations", "sizes"), [(SMALLER, [(32, 43), (40, 53)]), (RANGE, [(96, 128)]), ([], [(96, 128)])]
)
def test_samples_are_those_without_a_cache(record, kind, augmentations, sizes):
    _, expected = samples(record, augmentations)
    mapper, found = samples(record, augmentations, cache=kind)
    assert_equal(found, expected)
    assert kept(mapper) == sizes


def test_the_second_epoch_decodes_nothing(record, monkeypatch):
    _, expected = samples(record, SMALLER, cache="disk")
    monkeypatch.setattr("maskrcnn_ext.data.mapping.image_reader.read_pixels", None)
    _, found = samples(record, SMALLER, cache="disk")
    assert_equal(found, expected)


def test_a_changed_file_is_read_again(record):
    samples(record, SMALLER, cache="disk")
    Image.new("RGB", (128, 96), "red").save(record["file_name"])
    os.utime(record["file_name"], ns=(1, 1))
    _, expected = samples(record, SMALLER)
    assert_equal(samples(record, SMALLER, cache="disk")[1], expected)


def test_a_wrong_size_is_an_error_each_time(record):
    wrong = {**record, "height": 95}
    for _ in range(2):
        with pytest.raises(InputError, match="the image is 128 x 96, its annotations are for 128 x 95"):
            samples(wrong, SMALLER, cache="disk", strict=True)


def test_a_damaged_entry_is_replaced(record):
    mapper, expected = samples(record, SMALLER, cache="disk")
    for path in mapper.reader.cache.folder.glob("*.npy"):
        path.write_bytes(path.read_bytes()[:150])
    assert_equal(samples(record, SMALLER, cache="disk")[1], expected)
    assert len(kept(mapper)) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cache": "memory"}, "cache=memory: expected null, ram or disk"),
        ({"cache": "ram", "cache_gb": 0}, "cache_gb=0: expected a number above 0"),
        ({"cache": "ram", "cache_gb": "20"}, "cache_gb=20: expected a number above 0"),
    ],
)
def test_wrong_settings_are_errors(settings, message):
    with pytest.raises(InputError, match=message):
        SafeMapper(True, augmentations=[], image_format="BGR", **settings)


@pytest.mark.parametrize("orientation", [1, 6])
def test_reduced_decoding_gives_nearly_the_same_image(record, orientation):
    if orientation != 1:
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.open(record["file_name"]).save(record["file_name"], quality=95, exif=exif)
        record.update(height=128, width=96)
    small, whole = read_reduced(record, "BGR", (33, 32))
    assert whole == (record["height"], record["width"])
    assert small.shape == (whole[0] // 2, whole[1] // 2, 3)
    _, expected = samples(record, SMALLER)
    _, found = samples(record, SMALLER, reduced_decoding=True)
    for one, other in zip(found, expected, strict=True):
        assert one["image"].shape == other["image"].shape
        assert float((one["image"].float() - other["image"].float()).abs().mean()) < 2
        assert torch.equal(one["instances"].gt_boxes.tensor, other["instances"].gt_boxes.tensor)


def test_images_that_cannot_be_reduced_are_read_whole(record, tmp_path):
    assert read_reduced(record, "BGR", (60, 80)) is None
    Image.open(record["file_name"]).save(tmp_path / "a.png")
    assert read_reduced({"file_name": str(tmp_path / "a.png")}, "BGR", (10, 10)) is None
    assert read_reduced({"file_name": str(tmp_path / "missing.jpg")}, "BGR", (10, 10)) is None
    assert read_reduced({**record, "window": [0, 0, 9, 9]}, "BGR", (9, 9)) is None
    _, expected = samples(record, RANGE[:0])
    assert_equal(samples(record, [], reduced_decoding=True)[1], expected)
