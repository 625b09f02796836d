"""Windows of photographs that are too large to decode at once."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from maskrcnn_ext.data.images import large
from maskrcnn_ext.data.images.large import is_large, read_large_window
from maskrcnn_ext.data.images.pixels import read_pixels
from maskrcnn_ext.errors import InputError

pytest.importorskip("rasterio")
HEIGHT, WIDTH = 40, 60
WINDOW = (7, 5, 20, 11)


@pytest.fixture
def photo():
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 255, (4, 6, 3), dtype=np.uint8))
    return small.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_windows_of_turned_images_are_cut_from_the_shown_image(tmp_path, photo, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo.save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        shown = np.asarray(ImageOps.exif_transpose(image))
    x, y, w, h = WINDOW
    found = read_large_window(str(tmp_path / "a.png"), {"file_name": "a.png", "window": WINDOW})
    assert np.array_equal(found, shown[y : y + h, x : x + w])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("image_format", ["BGR", "RGB", "L", "raw"])
def test_windows_equal_those_of_the_decoded_image(tmp_path, photo, monkeypatch, mode, image_format):
    photo.convert(mode).save(tmp_path / "a.png")
    record = {"file_name": str(tmp_path / "a.png"), "window": WINDOW}
    expected = read_pixels(record, image_format)
    monkeypatch.setattr(large, "LARGE", 0)
    assert np.array_equal(read_pixels(record, image_format), expected)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_levels_of_few_bits(tmp_path, photo, monkeypatch, bits):
    grey = np.asarray(photo.convert("L")) >> (8 - bits)
    Image.fromarray(grey).save(tmp_path / "a.png", bits=bits)
    record = {"file_name": str(tmp_path / "a.png"), "window": WINDOW}
    expected = read_pixels(record, "BGR")
    assert expected.max() > 1
    monkeypatch.setattr(large, "LARGE", 0)
    assert np.array_equal(read_pixels(record, "BGR"), expected)


def test_deep_grey_and_jpeg(tmp_path, photo, monkeypatch):
    deep = np.asarray(photo.convert("L")).astype(np.uint16) * 200
    Image.fromarray(deep).save(tmp_path / "deep.png")
    photo.save(tmp_path / "a.jpg", quality=95, subsampling=0)
    records = [{"file_name": str(tmp_path / name), "window": WINDOW} for name in ("deep.png", "a.jpg")]
    expected = [read_pixels(record, "BGR").astype(int) for record in records]
    monkeypatch.setattr(large, "LARGE", 0)
    found = [read_pixels(record, "BGR").astype(int) for record in records]
    assert np.array_equal(found[0], expected[0])
    assert np.abs(found[1] - expected[1]).max() <= 3, "decoders of JPEG round differently"


def test_a_header_of_more_pixels_than_pillow_decodes(tmp_path, monkeypatch):
    Image.new("1", (20, 10)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    assert not is_large(str(tmp_path / "a.png"))
    with pytest.raises(InputError, match=r"20 x 10 pixels are too many to read at once: predict it in tiles \(--tile"):
        read_pixels({"file_name": str(tmp_path / "a.png")}, "BGR")


def test_a_window_outside_the_image(tmp_path, photo):
    photo.save(tmp_path / "a.png")
    with pytest.raises(InputError, match="is not inside its 60 x 40 pixels"):
        read_large_window(str(tmp_path / "a.png"), {"file_name": "a.png", "window": (50, 0, 20, 10)})
