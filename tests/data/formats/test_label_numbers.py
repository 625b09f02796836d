"""The numbers of pixels in every kind of file that holds label images, and files that lose them."""

import sys

import numpy as np
import pytest
from PIL import Image

from maskrcnn_ext import InputError
from maskrcnn_ext.data.formats.label_numbers import are_two_valued, image_shape, read_numbers

LABELS = np.array([[0, 0, 3, 3, 0], [0, 0, 3, 0, 0], [9, 9, 0, 0, 3]])
COLOURS = {0: (0, 0, 0), 3: (255, 0, 0), 9: (1, 2, 3)}
NUMBERS = {0: 0, 3: 255, 9: 1 + 2 * 256 + 3 * 65536}


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("alpha", [False, True])
def test_each_colour_is_a_number(tmp_path, suffix, alpha):
    pixels = np.zeros((*LABELS.shape, 4 if alpha else 3), np.uint8)
    for value, colour in COLOURS.items():
        pixels[value == LABELS, :3] = colour
        if alpha:
            pixels[value == LABELS, 3] = 255 * (value > 0)
    file = tmp_path / f"a.{suffix}"
    Image.fromarray(pixels).save(file)
    expected = np.vectorize(NUMBERS.get)(LABELS)
    np.testing.assert_array_equal(read_numbers(file), expected)
    np.testing.assert_array_equal(read_numbers(file, [255]), np.where(expected == 255, 0, expected))
    if alpha:
        pixels[:, 2, 3] = 0  # transparent pixels have no object
        Image.fromarray(pixels).save(file)
        assert not read_numbers(file)[:, 2].any()


def test_a_grey_image_of_three_channels_has_the_numbers_of_its_grey(tmp_path):
    Image.fromarray(np.stack([LABELS.astype(np.uint8)] * 3, axis=2)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_numbers(tmp_path / "a.png"), LABELS)


def test_a_photograph_is_no_label_image(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (80, 80, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png: has \d+ colours, so it is a photograph or its edges were smoothed"):
        read_numbers(tmp_path / "a.png")


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_truncated_tiff_is_never_read_in_part(tmp_path, compression):
    tifffile = pytest.importorskip("tifffile")
    labels = np.random.default_rng(0).integers(0, 60000, (3, 40, 50)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "whole.tif", labels, compression=compression, photometric="minisblack")
    np.testing.assert_array_equal(read_numbers(tmp_path / "whole.tif"), labels)
    whole = (tmp_path / "whole.tif").read_bytes()
    for length in range(0, len(whole) - 200, len(whole) // 25):  # at the very end are no pixels, but the resolution
        (tmp_path / "cut.tif").write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"cut\.tif: (not a readable TIFF|truncated)"):
            read_numbers(tmp_path / "cut.tif")


def test_without_tifffile_the_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.tif").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(InputError, match=r"a\.tif.*pip install \"maskrcnn_ext\[tiff\]\""):
        read_numbers(tmp_path / "a.tif")


def test_floats_that_are_whole_numbers_are_labels(tmp_path):
    """ImageJ's and Fiji's label images are often of 32 bits."""
    tifffile = pytest.importorskip("tifffile")
    for numbers in (LABELS.astype(np.float32), LABELS * 1e9):
        tifffile.imwrite(tmp_path / "a.tif", numbers)
        found = read_numbers(tmp_path / "a.tif")
        assert found.dtype.kind in "iu"
        np.testing.assert_array_equal(found, numbers)


def test_a_lossy_label_image_is_refused(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    pytest.importorskip("imagecodecs")
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((3, 5), np.uint8), compression="jpeg")
    with pytest.raises(InputError, match=r"a\.tif: JPEG does not keep the numbers"):
        read_numbers(tmp_path / "a.tif")


def test_a_shape_comes_from_the_header(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    Image.new("RGB", (5, 3)).save(tmp_path / "a.png")
    assert image_shape(tmp_path / "a.png", "here") == (3, 5)
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 3, 5), np.uint16), photometric="minisblack")
    assert image_shape(tmp_path / "a.tif", "here") == (4, 3, 5)
    for name in ("b.png", "b.tif"):
        (tmp_path / name).write_bytes(b"nothing")
        with pytest.raises(InputError, match=rf"^here: cannot read image .*{name}"):
            image_shape(tmp_path / name, "here")


def test_black_and_white_masks_do_not_separate_objects(tmp_path):
    def saved(*values, mode="L"):
        file = tmp_path / f"{mode}{'_'.join(map(str, values))}.png"
        Image.fromarray(np.resize(np.array(values, np.uint16 if mode == "I;16" else np.uint8), (3, 5))).save(file)
        return file

    assert are_two_valued([saved(0, 255), saved(0)])
    assert not are_two_valued([saved(0)])  # no object in any
    assert not are_two_valued([saved(0, 255), saved(0, 1, 2)])
    assert not are_two_valued([saved(0, 1, mode="I;16")])
    (tmp_path / "broken.png").write_bytes(b"nothing")
    assert not are_two_valued([tmp_path / "broken.png"])
