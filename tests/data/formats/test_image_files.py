"""Sizes from headers, numbers of label images, and damaged files."""

import numpy as np
import pytest
from PIL import Image

from maskrcnn_ext import InputError
from maskrcnn_ext.data.formats.image_files import image_size, read_labels, read_pixels


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tif", "webp"])
def test_a_size_comes_from_the_header(tmp_path, suffix):
    file = tmp_path / f"a.{suffix}"
    Image.new("RGB", (31, 17)).save(file)
    assert image_size(file, "here") == (17, 31)


@pytest.mark.parametrize(("orientation", "size"), [(1, (17, 31)), (3, (17, 31)), (6, (31, 17)), (8, (31, 17))])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_the_size_of_a_rotated_photograph_equals_detectron2s(tmp_path, orientation, size, suffix):
    from detectron2.data.detection_utils import read_image

    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / f"a.{suffix}"
    Image.new("RGB", (31, 17)).save(file, exif=exif)
    assert image_size(file, "here") == size == read_image(str(file), "BGR").shape[:2]


def test_a_size_needs_no_pixels(tmp_path):
    whole = tmp_path / "whole.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 70), np.uint8)).save(whole)
    (tmp_path / "half.png").write_bytes(whole.read_bytes()[:200])
    assert image_size(tmp_path / "half.png", "here") == (60, 70)
    with pytest.raises(InputError, match=r"half\.png: not a readable image"):
        read_pixels(tmp_path / "half.png")


@pytest.mark.parametrize("content", [None, b"", b"no image", b"\x89PNG\r\n\x1a\n"])
def test_a_missing_or_broken_image_is_named(tmp_path, content):
    file = tmp_path / "a.png"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=r"^here: cannot read image .*a\.png"):
        image_size(file, "here")


def test_a_damaged_label_image_is_never_read_in_part(tmp_path):
    labels = np.random.default_rng(0).integers(0, 60000, (20, 24)).astype(np.uint16)
    Image.fromarray(labels).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    file = tmp_path / "cut.png"
    for length in range(0, len(whole) - 24, 7):  # at the very end are no pixels, but checksums
        file.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"cut\.png: not a readable image"):
            read_pixels(file)
    file.write_bytes(whole[:400] + bytes(40) + whole[440:])
    with pytest.raises(InputError, match=r"cut\.png: not a readable image"):
        read_pixels(file)


def test_grey_pngs_of_every_depth_hold_their_numbers(tmp_path):
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    for bits, row, expected in (
        (1, b"\x50", [0, 1, 0, 1]),
        (2, b"\x1b", [0, 1, 2, 3]),
        (4, b"\x01\x9f", [0, 1, 9, 15]),
        (8, bytes([0, 1, 85, 255]), [0, 1, 85, 255]),
        (16, struct.pack(">4H", 0, 1, 256, 65535), [0, 1, 256, 65535]),
    ):
        header = struct.pack(">IIBBBBB", 4, 1, bits, 0, 0, 0, 0)
        png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" + row))
        (tmp_path / "a.png").write_bytes(png + chunk(b"IEND", b""))
        assert read_labels(tmp_path / "a.png", 1, 4).astype(int).tolist() == [expected]


def test_a_palette_gives_indices_and_colours_are_refused(tmp_path):
    image = Image.new("P", (3, 1))
    image.putpalette([9] * 768)  # all indices have one colour
    image.putdata([0, 3, 255])
    image.save(tmp_path / "p.png")
    assert read_labels(tmp_path / "p.png", 1, 3).tolist() == [[0, 3, 255]]
    with pytest.raises(InputError, match=r"p\.png: label image is 3 x 1, its image 3 x 2"):
        read_labels(tmp_path / "p.png", 2, 3)
    Image.new("RGB", (3, 1)).save(tmp_path / "c.png")
    with pytest.raises(InputError, match=r"c\.png: a label image has one channel .* not 3"):
        read_labels(tmp_path / "c.png", 1, 3)


def test_a_changed_bit_of_a_png_is_found(tmp_path):
    labels = np.zeros((20, 24), np.uint8)
    labels[3:9, 4:20] = 7
    file = tmp_path / "a.png"
    Image.fromarray(labels).save(file)
    whole = file.read_bytes()
    for place in range(whole.index(b"IDAT") + 4, len(whole) - 12):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(InputError, match=r"a\.png: not a readable image"):
            read_pixels(file)


def test_a_jpeg_is_not_a_label_image(tmp_path):
    Image.new("L", (8, 8), 3).save(tmp_path / "a.jpg")
    with pytest.raises(InputError, match=r"a\.jpg: JPEG does not keep the values"):
        read_pixels(tmp_path / "a.jpg")
