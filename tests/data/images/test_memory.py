"""Images in memory are converted to the channels of the model's image format."""

import io
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from maskrcnn_ext import InputError
from maskrcnn_ext.data.images.memory import convert_image, read_bytes
from maskrcnn_ext.data.images.pixels import read_pixels

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
    found = read_bytes(png(image), partial(read_pixels, image_format=image_format))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(convert_image(image, image_format), expected)


def test_an_array_is_bgr_or_raw():
    np.testing.assert_array_equal(convert_image(BGR, "RGB"), BGR[:, :, ::-1])
    np.testing.assert_array_equal(convert_image(BGR, "raw"), BGR)


def test_a_grey_image_gets_equal_channels():
    grey = np.array([[1, 2]], np.uint16)
    assert convert_image(grey, "BGR").tolist() == [[[1, 1, 1], [2, 2, 2]]]
    assert convert_image(grey, "L").shape == (1, 2, 1)


@pytest.mark.parametrize(
    "image", [np.zeros((0, 4)), np.zeros(3), np.zeros((2, 2, 4), np.uint8), np.array([["a"]])], ids=str
)
def test_other_types_than_images_are_refused(image):
    with pytest.raises(InputError):
        convert_image(image, "BGR")


@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\n"])
def test_bytes_that_are_not_an_image_are_refused(content):
    with pytest.raises(InputError, match=f"^an image of {len(content)} bytes: "):
        read_bytes(content, partial(read_pixels, image_format="BGR"))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(value):
    with pytest.raises(InputError, match="NaN or infinite"):
        convert_image(np.full((2, 2), value), "BGR")


def write_array(file, array):
    if file.endswith(".npy"):
        np.save(file, array)
    else:
        cv2.imwrite(file, array)


@pytest.mark.parametrize("image_format", ["BGR", "raw"])
@pytest.mark.parametrize("shape", [(6, 9), (6, 9, 3)])
@pytest.mark.parametrize(
    ("suffix", "dtype"), [("png", "uint8"), ("png", "uint16"), ("tif", "uint16"), ("npy", "float32")]
)
def test_bytes_and_their_file_agree(tmp_path, suffix, dtype, shape, image_format):
    file = str(tmp_path / f"a.{suffix}")
    write_array(file, (np.random.default_rng(0).random(shape) * 250 * (1 if dtype != "uint16" else 257)).astype(dtype))
    read = partial(read_pixels, image_format=image_format)
    expected = read({"file_name": file})
    found = read_bytes(Path(file).read_bytes(), read)
    assert found.dtype == expected.dtype == dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("image_format", ["BGR", "RGB", "L", "raw"])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1", "CMYK", "I;16"])
def test_a_pil_image_and_its_file_agree_also_when_turned(tmp_path, mode, image_format):
    values = np.random.default_rng(0).integers(0, 255, (6, 9, 3), dtype=np.uint8)
    image = (
        Image.fromarray(values[:, :, 0].astype(np.uint16) * 200)
        if mode == "I;16"
        else Image.fromarray(values).convert(mode)
    )
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    file = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    image.save(file, exif=exif)
    with Image.open(file) as opened:
        found = convert_image(opened, image_format)
    assert found.shape[:2] == (9, 6)
    np.testing.assert_array_equal(found, read_pixels({"file_name": str(file)}, image_format))
