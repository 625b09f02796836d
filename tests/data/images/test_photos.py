"""Photographs are read as Detectron2 reads them, and images of 16 bits keep every value."""

import cv2
import numpy as np
import pytest
from detectron2.data.detection_utils import read_image
from PIL import Image

from maskrcnn_ext import InputError
from maskrcnn_ext.data.images.photos import is_photo, read_deep
from tests.helpers.image_files import DEEP, PHOTO, RNG, read_file


@pytest.mark.parametrize("image_format", ["BGR", "RGB", "L"])
@pytest.mark.parametrize(
    ("mode", "name", "options"),
    [
        ("RGB", "a.png", {}),
        ("RGB", "a.jpg", {"quality": 90}),
        ("RGB", "a.tif", {}),
        ("RGB", "a.tiff", {"compression": "tiff_lzw"}),
        ("L", "a.png", {}),
        ("RGBA", "a.png", {}),
        ("P", "a.png", {}),
        ("1", "a.png", {}),
        ("CMYK", "a.jpg", {}),
    ],
)
def test_photographs_equal_detectron2s_bit_for_bit(save, mode, name, options, image_format):
    path = save(Image.fromarray(PHOTO).convert(mode), name, **options)
    ours, theirs = read_file(path, image_format), read_image(str(path), image_format)
    np.testing.assert_array_equal(ours, theirs)
    assert ours.dtype == theirs.dtype == np.uint8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied_in_every_format(save, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(PHOTO, "a.jpg", exif=exif)
    np.testing.assert_array_equal(read_file(path, "BGR"), read_image(str(path), "BGR"))
    np.testing.assert_array_equal(read_file(path, "raw"), read_image(str(path), "RGB"))


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("LA", 2), ("RGB", 3), ("RGBA", 4), ("1", 1), ("P", 3)])
def test_raw_keeps_the_channels_of_8_bits(save, mode, channels):
    stored = Image.fromarray(PHOTO).convert(mode)
    image = read_file(save(stored, "a.png"))
    assert image.shape == (40, 60, channels)
    expected = {"P": stored.convert("RGB"), "1": stored.convert("L")}.get(mode, stored)
    np.testing.assert_array_equal(image.squeeze(), np.asarray(expected))


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bit_grey_keeps_every_value(save, name):
    values = np.arange(4001, dtype=np.uint16).reshape(1, 4001)
    path = save(values, name)
    assert len(np.unique(read_image(str(path), "BGR"))) == 256, "the stock reader clips at 255"
    for image_format in ("raw", "L", "BGR"):
        image = read_file(path, image_format)
        assert image.dtype == np.uint16
        assert len(np.unique(image)) == 4001
        np.testing.assert_array_equal(image, np.broadcast_to(values[:, :, None], image.shape))
    assert image.shape == (1, 4001, 3)


@pytest.mark.parametrize("channels", [3, 4])
def test_16_bit_colours_of_a_png(tmp_path, channels):
    stored = RNG.integers(0, 65536, (24, 32, channels), dtype=np.uint16)
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), stored)  # OpenCV takes B, G, R(, A)
    raw = read_file(path)
    assert raw.dtype == np.uint16
    np.testing.assert_array_equal(raw[:, :, :3], stored[:, :, 2::-1])
    if channels == 3:
        np.testing.assert_array_equal(read_file(path, "BGR"), stored)
    else:
        np.testing.assert_array_equal(raw[:, :, 3], stored[:, :, 3])
        with pytest.raises(InputError, match=r"has 4 channels of uint16, .*image_format=raw"):
            read_file(path, "BGR")


def test_a_tiff_of_8_bits_is_a_photo(save, tmp_path):
    assert is_photo(str(save(PHOTO, "a.tif")))
    assert is_photo(str(save(Image.fromarray(PHOTO).convert("1"), "b.tif")))
    assert not is_photo(str(save(DEEP[:, :, 0], "c.tif")))
    pages = [Image.fromarray(PHOTO), Image.fromarray(PHOTO)]
    pages[0].save(tmp_path / "d.tif", save_all=True, append_images=pages[1:])
    assert not is_photo(str(tmp_path / "d.tif"))
    (tmp_path / "e.tif").write_bytes(b"no image")
    assert not is_photo(str(tmp_path / "e.tif"))


def test_only_images_of_more_than_8_bits_are_deep(save, tmp_path):
    assert read_deep(str(save(PHOTO, "a.png"))) is None
    assert read_deep(str(save(DEEP[:, :, 0], "b.png"))).dtype == np.uint16
    floats = Image.fromarray(np.array([[0.5, -2.0]], np.float32))
    assert read_deep(str(save(floats, "c.tif"))).tolist() == [[[0.5], [-2.0]]]
    (tmp_path / "d.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"d\.png: not an image, or broken at its beginning"):
        read_deep(str(tmp_path / "d.png"))
