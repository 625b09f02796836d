"""Large images: every object once, little memory, and a job that goes on where it was killed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
import torch

from maskrcnn_ext import InputError, Predictor, TiledPredictor
from maskrcnn_ext.inference.jobs.journal import Journal
from maskrcnn_ext.inference.tiling.predictor import predict_tiled
from maskrcnn_ext.inference.tiling.windowed import WindowedImage
from maskrcnn_ext.ops.tile_grid import TileGrid
from tests.helpers import tile_oracle

ORACLE = Path(tile_oracle.__file__)
NORTH_UP = rasterio.transform.Affine(0.5, 0, 0, 0, -0.5, 0)
SETTINGS = {"tile": 300, "overlap": 0.2}


def test_500_objects_on_seams_and_off_are_500(tmp_path, run_python):
    settings = [(512, 0.2), (1024, 0.2), (700, 0.1)]
    for tile, overlap in settings:
        labels = tile_oracle.make_labels(4096, tile, overlap, 500)
        assert tile_oracle.num_cut(labels, tile, overlap) >= 150
        np.save(tmp_path / f"{tile}.npy", labels)
    done = run_python(ORACLE, *(part for tile, overlap in settings for part in (f"{tile}.npy", tile, overlap)))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [one["found"] for one in told] == [500] * 3
    assert min(one["iou"] for one in told) >= 0.99
    assert min(one["least"] for one in told) >= 0.95
    assert max(one["mb"] for one in told) < 300


def same(one, other):
    assert one.pred_masks.rles == other.pred_masks.rles
    for field in ("scores", "pred_classes"):
        assert torch.equal(one.get(field), other.get(field))
    assert torch.equal(one.pred_boxes.tensor, other.pred_boxes.tensor)


@pytest.fixture(scope="module")
def labels():
    return tile_oracle.make_labels(1000, 300, 0.2, 30)


@pytest.fixture(scope="module")
def expected(labels):
    return predict_tiled(tile_oracle.detect, WindowedImage(labels[:, :, None]), **SETTINGS)


def test_a_job_that_stops_half_way_goes_on_without_doing_a_tile_twice(labels, expected, tmp_path):
    image, calls = WindowedImage(labels[:, :, None]), []

    def detect(tiles):
        if len(calls) == 8:
            raise KeyboardInterrupt
        calls.append([tile.sum() for tile in tiles])
        return tile_oracle.detect(tiles)

    with Journal(tmp_path / "tiles.jsonl", SETTINGS) as journal, pytest.raises(KeyboardInterrupt):
        predict_tiled(detect, image, **SETTINGS, journal=journal, key="a")
    first, calls = calls, []
    with Journal(tmp_path / "tiles.jsonl", SETTINGS) as journal:
        same(predict_tiled(detect, image, **SETTINGS, journal=journal, key="a"), expected)
        assert len(first) == 8
        assert len(first) + len(calls) == len(journal) == len(TileGrid(1000, 1000, **SETTINGS).windows) == 16
        assert not [call for call in calls if call in first]
        same(predict_tiled(detect, image, **SETTINGS, journal=journal, key="a"), expected)
        assert len(first) + len(calls) == 16
        assert "a@0,0" in journal


def test_a_killed_process_leaves_a_journal_that_goes_on(labels, expected, tmp_path):
    np.save(tmp_path / "image.npy", labels)
    code = """
import os, signal, sys
from pathlib import Path
from tests.helpers import tile_oracle
from maskrcnn_ext.inference.jobs.journal import Journal
from maskrcnn_ext.inference.tiling.predictor import predict_tiled
from maskrcnn_ext.inference.tiling.windowed import WindowedImage
def detect(tiles):
    if len(journal) == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    return tile_oracle.detect(tiles)
settings = {"tile": 300, "overlap": 0.2}
journal = Journal(Path("tiles.jsonl"), settings)
predict_tiled(detect, WindowedImage("image.npy"), **settings, journal=journal)
"""
    path = os.pathsep.join([str(ORACLE.parent), os.environ["PYTHONPATH"]])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    tiles = []

    def detect(batch):
        tiles.extend(batch)
        return tile_oracle.detect(batch)

    with Journal(tmp_path / "tiles.jsonl", SETTINGS) as journal:
        assert len(journal) == 8
        same(predict_tiled(detect, WindowedImage(tmp_path / "image.npy"), **SETTINGS, journal=journal), expected)
    assert len(tiles) == 8


def test_batches_change_nothing_and_blank_tiles_are_not_predicted(labels, expected):
    sizes = []

    def detect(tiles):
        sizes.append(len(tiles))
        return tile_oracle.detect(tiles)

    image = labels[:, :, None].copy()
    same(predict_tiled(detect, WindowedImage(image), **SETTINGS, batch_size=3), expected)
    assert sizes == [3, 3, 3, 3, 3, 1]
    image[:] = 7
    sizes.clear()
    assert len(predict_tiled(detect, WindowedImage(image), **SETTINGS)) == 0
    assert sizes == []


def test_boxes_alone_are_merged_too():
    """Apart enough that boxes tell the objects apart."""
    labels = np.zeros((500, 500), np.uint16)
    boxes = [(20, 20, 60, 70), (200, 30, 330, 90), (220, 130, 250, 480), (400, 400, 470, 450)]
    for number, (x0, y0, x1, y1) in enumerate(boxes, start=1):
        labels[y0:y1, x0:x1] = number

    def detect(tiles):
        return tile_oracle.detect(tiles, has_masks=False)

    found = predict_tiled(detect, WindowedImage(labels[:, :, None]), tile=256, overlap=0.2)
    assert not found.has("pred_masks")
    assert len(found) == len(boxes)
    assert sorted(np.rint(found.pred_boxes.tensor.numpy() / 10).tolist()) == sorted(
        np.rint(np.array(boxes) / 10).tolist()
    )


def test_what_cannot_be_is_told(labels):
    image = WindowedImage(labels[:, :, None])
    for wrong in ({"tile": 20}, {"overlap": 2}, {"batch_size": 0}, {"agreement": 0}):
        with pytest.raises(InputError, match=f"{next(iter(wrong))}="):
            predict_tiled(tile_oracle.detect, image, **{**SETTINGS, **wrong})


class Enormous(WindowedImage):
    """An image of 2**32 pixels, of which there is one tile."""

    height = width = 2**16

    def __init__(self):
        """Reads nothing."""

    def read(self, window):
        assert window == (0, 0, 2**15, 2**15)
        pixels = np.zeros((100, 100, 1), np.uint16)
        pixels[20:90, 20:90] = 1
        return pixels


def test_an_image_too_large_for_rles_is_refused_at_its_first_mask():
    with pytest.raises(InputError, match=r"65536 x 65536 has 2\^32 pixels"):
        predict_tiled(tile_oracle.detect, Enormous(), tile=2**15, overlap=0.1)


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
    told = json.loads(done.stdout)
    assert told["size"] == [20_000, 20_000]
    np.testing.assert_allclose(
        sorted(told["boxes"]), [[10_000, 10_000, 10_300, 10_300], [19_900, 19_950, 19_940, 19_990]], atol=1
    )
    assert told["mb"] < 200


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)


class TestWindowedImage:
    def test_a_photograph_an_array_and_a_tiff_give_the_same(self, pixels, tmp_path):
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
    def test_a_window_of_a_record_is_an_image_of_its_own(self, pixels, suffix, tmp_path):
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
    def test_what_cannot_be_read_is_told(self, name, tmp_path):
        if name.startswith("broken"):
            (tmp_path / name).write_text("nothing")
        with pytest.raises(InputError, match=name):
            WindowedImage(tmp_path / name)


@pytest.fixture(scope="module")
def predictor():
    quick = [
        "model.roi_heads.num_classes=2",
        "model.proposal_generator.post_nms_topk=[100,30]",
        "dataloader.test.mapper.augmentations=[]",
    ]
    return Predictor("mask_rcnn_r18_fpn_scratch", "", device="cpu", overrides=quick)


class TestTiledPredictor:
    def test_an_image_of_one_tile_is_predicted_as_without_tiles(self, predictor, tmp_path):
        pixels = np.random.default_rng(1).integers(0, 255, (100, 120, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / "image.png"), pixels)
        plain = predictor(tmp_path / "image.png")
        assert len(plain) > 5
        plain = plain[plain.pred_masks.areas() > 0]
        same(TiledPredictor(predictor, tile=128)(tmp_path / "image.png"), plain)

    def test_tiles_are_predicted_in_the_image_format(self, predictor, tmp_path):
        pixels = np.random.default_rng(1).integers(0, 255, (100, 200, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / "image.png"), pixels)
        tiled = TiledPredictor(predictor, tile=128, batch_size=2)
        with Journal(tmp_path / "tiles.jsonl", {}) as journal:
            same(tiled(tmp_path / "image.png", journal=journal, key="k"), tiled(predictor.pixels(pixels)))
            assert list(journal) == ["k@0,0", "k@72,0"]
            found = predictor(pixels[:, 72:])
            scores = [one["score"] for one in journal["k@72,0"]]
            np.testing.assert_allclose(scores, found.scores.numpy(), rtol=1e-4)
