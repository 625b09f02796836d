"""``maskrcnn-ext browse-data``: the pictures show the mapper's samples."""

import cv2
import numpy as np
import pytest

from maskrcnn_ext import get_config
from maskrcnn_ext.data.tools.browse import browse_stored, browse_training, to_bgr
from maskrcnn_ext.ops.rle import decode_rle, segmentation_to_rle


@pytest.fixture
def spec(shapes):
    return f"coco:{shapes}@{shapes.parent / 'images'}"


def test_stored_samples_are_the_files(spec):
    for sample in browse_stored(spec, num=3, seed=1):
        assert np.array_equal(sample.image, cv2.imread(sample.file_name))
        assert len(sample.classes) == len(sample.boxes) == len(sample.segmentations) > 0
        for box, segmentation in zip(sample.boxes, sample.segmentations, strict=True):
            rows, columns = np.nonzero(decode_rle(segmentation_to_rle(segmentation, *sample.image.shape[:2])))
            drawn = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_allclose(drawn, box, atol=1)


def test_a_config_shows_the_samples_of_training(people):
    cfg = get_config("mask_keypoint_rcnn_r18_fpn_scratch.py")
    cfg.dataloader.train.dataset.names = people
    workers = cfg.dataloader.train.num_workers
    first, again = (browse_training(cfg, num=4, seed=3) for _ in range(2))
    other = browse_training(cfg, num=4, seed=4)
    assert cfg.dataloader.train.num_workers == workers, "the caller's config stays as it is"
    assert all(np.array_equal(a.image, b.image) for a, b in zip(first, again, strict=True))
    assert [s.image.shape for s in first] != [s.image.shape for s in other] or not np.array_equal(
        first[0].image, other[0].image
    )
    for sample in first:
        assert sample.image.shape[0] > 64, "the config enlarges the images"
        assert sample.keypoints.shape == (len(sample.classes), 17, 3)


def test_images_of_every_kind_can_be_shown():
    stripes = np.arange(12.0).reshape(3, 4, 1)
    assert to_bgr(stripes, "L").shape == (3, 4, 3)
    assert to_bgr(stripes, "L").max() == 255
    six = np.arange(6 * 2 * 2, dtype=np.uint8).reshape(6, 2, 2).transpose(1, 2, 0)
    assert to_bgr(six, "RGB")[0, 0].tolist() == [8, 4, 0]
    assert to_bgr(six, "BGR")[0, 0].tolist() == [0, 4, 8]
    assert np.array_equal(to_bgr(six, "raw"), to_bgr(six, "RGB")), "colours are stored as R, G, B"
    assert to_bgr(np.zeros((2, 2, 3), np.uint16), "BGR").max() == 0
