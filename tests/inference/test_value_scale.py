"""Images of another scale than the model's are reported once, with the override that fits; honest images never are."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from maskrcnn_ext.inference.value_scale import ValueScale

PHOTO = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
EIGHT_BIT, ABSORBED = ([123.7, 116.3, 103.5], [58.4, 57.1, 57.4]), ([103.5, 116.3, 123.7], [1.0, 1.0, 1.0])
DEEP, CT = ([21000.0], [12000.0]), ([-500.0], [400.0])


def warnings_of(model, *images, caplog):
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in model)
    scale = ValueScale(SimpleNamespace(pixel_mean=mean, pixel_std=std))
    with caplog.at_level(logging.WARNING, "maskrcnn_ext"):
        for image in images:
            scale.check(image)
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(
    ("model", "image", "override"),
    [
        (EIGHT_BIT, PHOTO / np.float32(255), "model.pixel_mean=[0.4851,0.45608,0.40588] model.pixel_std=[0.22902,"),
        (EIGHT_BIT, PHOTO.astype(np.uint16) * 257, "model.pixel_mean=[31791,29889,26600]"),
        (EIGHT_BIT, PHOTO.astype(np.uint16) * 16, "model.pixel_mean=[1986.5,"),
        (ABSORBED, PHOTO / np.float32(255), "model.pixel_std=[0.0039216,"),
        (ABSORBED, PHOTO.astype(np.uint16) * 257, "model.pixel_std=[257,257,257]"),
        (DEEP, PHOTO[:, :, :1], "model.pixel_mean=[81.712] model.pixel_std=[46.693]"),
    ],
)
def test_another_scale_is_reported_once(model, image, override, caplog):
    (message,) = warnings_of(model, image, image, caplog=caplog)
    assert override in message
    assert "The results may be wrong" in message


@pytest.mark.parametrize(
    ("model", "image"),
    [
        (EIGHT_BIT, PHOTO),
        (EIGHT_BIT, PHOTO // 200),  # night
        (EIGHT_BIT, PHOTO.astype(np.float32)),
        (EIGHT_BIT, np.zeros((4, 4, 3), np.float32)),
        (ABSORBED, PHOTO),
        (DEEP, PHOTO[:, :, :1].astype(np.uint16) * 200),
        (CT, PHOTO[:, :, :1].astype(np.int16) * 8 - 1024),
    ],
)
def test_honest_images_are_not_reported(model, image, caplog):
    assert warnings_of(model, image, caplog=caplog) == []
