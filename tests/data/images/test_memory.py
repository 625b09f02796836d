"""Images in memory are converted to the channels of the model's image format."""

import io

import numpy as np
import pytest
from PIL import Image

from maskrcnn_ext import InputError
from maskrcnn_ext.data.images.memory import convert_image

BGR = np.array([[[10, 20, 30], [40, 50, 60]]], np.uint8)


def png(image):
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("image_format", "expected"),
    [("BGR", BGR), ("RGB", BGR[:, :, ::-1]), ("raw", BGR[:, :, ::-1]), ("L", np.array([[[22], [52]]], np.uint8))],
)
def test_files_and_pil_images_agree(image_format, expected):
    image = Image.fromarray(np.ascontiguousarray(BGR[:, :, ::-1]))
    for source in (image, png(image)):
        np.testing.assert_array_equal(convert_image(source, image_format), expected)


def test_an_array_is_bgr_or_raw():
    np.testing.assert_array_equal(convert_image(BGR, "RGB"), BGR[:, :, ::-1])
    np.testing.assert_array_equal(convert_image(BGR, "raw"), BGR)


def test_a_grey_image_gets_equal_channels():
    grey = np.array([[1, 2]], np.uint16)
    assert convert_image(grey, "BGR").tolist() == [[[1, 1, 1], [2, 2, 2]]]
    assert convert_image(grey, "L").shape == (1, 2, 1)


@pytest.mark.parametrize("image", [b"", b"text", np.zeros((0, 4)), np.zeros(3), np.zeros((2, 2, 4), np.uint8)], ids=str)
def test_what_is_not_an_image_is_refused(image):
    with pytest.raises(InputError):
        convert_image(image, "BGR")
