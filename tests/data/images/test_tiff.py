"""TIFF of any number of channels, in every order of axes, stacks and windows."""

import numpy as np
import pytest

from maskrcnn_ext import InputError
from maskrcnn_ext.data.images.tiff import read_tiff
from tests.helpers.image_files import RNG, read_file


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
@pytest.mark.parametrize("layout", ["last", "first", "last, meant", "first, meant", "planar"])
def test_tiff_of_five_channels(tmp_path, dtype, layout):
    tifffile = pytest.importorskip("tifffile")
    stored = (RNG.random((30, 20, 5)) * 250).astype(dtype)
    path = tmp_path / "a.tif"
    first = np.ascontiguousarray(np.moveaxis(stored, 2, 0))
    array, options = {
        "last": (stored, {}),
        "first": (first, {}),
        "last, meant": (stored, {"photometric": "minisblack", "planarconfig": "contig"}),
        "first, meant": (first, {"metadata": {"axes": "CYX"}, "ome": True}),
        "planar": (first, {"photometric": "minisblack", "planarconfig": "separate"}),
    }[layout]
    tifffile.imwrite(path, array, **options)
    image = read_file(path, height=30, width=20)
    assert image.dtype == dtype
    np.testing.assert_array_equal(image, stored)
    with pytest.raises(InputError, match="has 5 channels"):
        read_file(path, "RGB")


def test_a_window_of_a_raster_with_transparency_is_three_colours(save):
    pixels = RNG.integers(0, 256, (40, 60, 4), dtype=np.uint8)
    path = save(pixels, "a.tif")
    np.testing.assert_array_equal(read_file(path, "RGB", window=[10, 5, 30, 20]), pixels[5:25, 10:40, :3])
    np.testing.assert_array_equal(read_file(path, window=[10, 5, 30, 20]), pixels[5:25, 10:40])


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [
        ((5, 30, 20), (30, 20), (30, 20, 5)),
        ((30, 20, 5), (30, 20), (30, 20, 5)),
        ((30, 20, 50), (20, 50), (20, 50, 30)),
        ((5, 30, 20), (None, None), (30, 20, 5)),
        ((30, 20, 5), (None, None), (30, 20, 5)),
    ],
)
def test_the_record_decides_which_axis_holds_the_channels(tmp_path, shape, size, expected):
    tifffile = pytest.importorskip("tifffile")
    values = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", metadata=None)
    image = read_tiff(str(tmp_path / "a.tif"), {"file_name": "a.tif", "height": size[0], "width": size[1]})
    assert image.shape == expected
    np.testing.assert_array_equal(image, values if shape == expected else np.moveaxis(values, 0, 2))


def test_four_axes_are_an_error(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((2, 3, 8, 9), np.uint8), photometric="minisblack")
    with pytest.raises(InputError, match=r"a\.tif: a TIFF of shape \(2, 3, 8, 9\)"):
        read_tiff(str(tmp_path / "a.tif"), {"file_name": "a.tif"})
