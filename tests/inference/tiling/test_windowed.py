"""Images that are read window by window: every kind of file has the same pixels, and a large raster needs little memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio

from maskrcnn_ext import InputError
from maskrcnn_ext.data.images.pixels import read_pixels
from maskrcnn_ext.inference.tiling.windowed import WindowedImage
from tests.helpers import tile_oracle

ORACLE = Path(tile_oracle.__file__)


NORTH_UP = rasterio.transform.Affine(0.5, 0, 0, 0, -0.5, 0)


RASTER = """
import json, sys
import numpy as np, psutil, torch
from detectron2.structures import Boxes, Instances
from maskrcnn_ext.inference.tiling.predictor import predict_tiled
from maskrcnn_ext.inference.tiling.windowed import WindowedImage
from tests.helpers.tile_oracle import detect, peak_memory
def bright(tiles):
    assert all(tile.shape == (1024, 1024, 3) and tile.dtype == np.uint8 for tile in tiles)
    return detect([(tile[:, :, 2:] // 100).astype(np.uint16) for tile in tiles])  # red, the last of B, G, R
bright([np.zeros((1024, 1024, 3), np.uint8)])
image = WindowedImage("scene.tif")
before = psutil.Process().memory_info().rss
found = predict_tiled(bright, image)
growth = peak_memory() - before
print(json.dumps({"size": [image.height, image.width], "boxes": found.pred_boxes.tensor.tolist(), "mb": growth / 2**20}))
"""


@pytest.fixture
def scene(tmp_path):
    """20 000 x 20 000 x 3 bytes, of which four blocks are on the disk: an object on a corner of tiles, and one in the last pixels."""
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 3, "width": 20_000, "height": 20_000}
    layout = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate", "SPARSE_OK": True}
    with rasterio.open(tmp_path / "scene.tif", "w", **profile, **layout, transform=NORTH_UP) as target:
        for x, y, side in ((10_000, 10_000, 300), (19_900, 19_950, 40)):
            pixels = np.zeros((3, side, side), np.uint8)
            pixels[0] = 100
            target.write(pixels, window=rasterio.windows.Window(x, y, side, side))
    return tmp_path


def test_a_raster_of_more_than_a_gigabyte_is_read_tile_by_tile(scene):
    path = os.pathsep.join([str(ORACLE.parent), os.environ["PYTHONPATH"]])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", RASTER], cwd=scene, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    assert measured["size"] == [20_000, 20_000]
    np.testing.assert_allclose(
        sorted(measured["boxes"]), [[10_000, 10_000, 10_300, 10_300], [19_900, 19_950, 19_940, 19_990]], atol=1
    )
    assert measured["mb"] < 200


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)


class TestWindowedImage:
    def test_a_photograph_an_array_and_a_tiff_have_the_same_pixels(self, pixels, tmp_path):
        cv2.imwrite(str(tmp_path / "image.png"), pixels)
        np.save(tmp_path / "image.npy", pixels[:, :, ::-1])
        profile = {"driver": "GTiff", "dtype": "uint8", "count": 3, "width": 80, "height": 60}
        with rasterio.open(tmp_path / "image.tif", "w", **profile, transform=NORTH_UP) as target:
            target.write(np.moveaxis(pixels[:, :, ::-1], 2, 0))
        for image in (pixels, tmp_path / "image.png", str(tmp_path / "image.npy"), tmp_path / "image.tif"):
            opened = WindowedImage(image)
            assert (opened.height, opened.width) == (60, 80)
            np.testing.assert_array_equal(opened.read((10, 20, 30, 40)), pixels[20:60, 10:40])

    @pytest.mark.parametrize("suffix", ["png", "tif"])
    def test_a_window_of_a_record_is_a_separate_image(self, pixels, suffix, tmp_path):
        cv2.imwrite(str(tmp_path / f"image.{suffix}"), pixels)
        opened = WindowedImage({"file_name": str(tmp_path / f"image.{suffix}"), "window": [8, 4, 50, 40]})
        assert (opened.height, opened.width) == (40, 50)
        np.testing.assert_array_equal(opened.read((5, 6, 20, 10)), pixels[10:20, 13:33])

    def test_other_channels_and_slices_of_a_stack(self, tmp_path):
        stack = np.arange(2 * 20 * 30 * 5, dtype=np.uint16).reshape(2, 20, 30, 5)
        np.save(tmp_path / "stack.npy", stack)
        opened = WindowedImage({"file_name": str(tmp_path / "stack.npy"), "slice": 1}, "raw")
        assert (opened.height, opened.width) == (20, 30)
        np.testing.assert_array_equal(opened.read((3, 4, 5, 6)), stack[1, 4:10, 3:8])

    @pytest.mark.parametrize(
        "name", ["missing.tif", "missing.npy", "missing.png", "broken.tif", "broken.npy", "broken.png"]
    )
    def test_errors_name_the_file(self, name, tmp_path):
        if name.startswith("broken"):
            (tmp_path / name).write_text("nothing")
        with pytest.raises(InputError, match=name):
            WindowedImage(tmp_path / name)


def test_windows_beside_each_other_in_a_large_photograph_are_decoded_together(tmp_path, monkeypatch):
    pytest.importorskip("rasterio")
    pixels = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    monkeypatch.setattr("maskrcnn_ext.data.images.large.LARGE", 0)
    seen = []

    def read(record):
        seen.append(record["window"])
        return read_pixels(record, "BGR")

    image = WindowedImage({"file_name": str(tmp_path / "a.png"), "window": [2, 1, 36, 28]}, read=read)
    for x, y, width, height in ((0, 0, 20, 10), (16, 0, 20, 10), (0, 8, 20, 10), (16, 8, 20, 10)):
        part = image.read((x, y, width, height))
        np.testing.assert_array_equal(part, pixels[1 + y : 1 + y + height, 2 + x : 2 + x + width])
    assert seen == [[2, 1, 36, 10], [2, 9, 36, 10]]
