"""Large images: each object is found once, and a killed job continues from its journal."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from maskrcnn_ext import InputError, Predictor, TiledPredictor
from maskrcnn_ext.inference.jobs.journal import Journal
from maskrcnn_ext.inference.tiling.predictor import predict_tiled
from maskrcnn_ext.inference.tiling.windowed import WindowedImage
from maskrcnn_ext.ops.tile_grid import TileGrid
from tests.helpers import tile_oracle

ORACLE = Path(tile_oracle.__file__)
SETTINGS = {"tile": 300, "overlap": 0.2}


def test_500_objects_are_found_once_each(tmp_path, run_python):
    settings = [(512, 0.2), (1024, 0.2), (700, 0.1)]
    for tile, overlap in settings:
        labels = tile_oracle.make_labels(4096, tile, overlap, 500)
        assert tile_oracle.num_cut(labels, tile, overlap) >= 150
        np.save(tmp_path / f"{tile}.npy", labels)
    done = run_python(ORACLE, *(part for tile, overlap in settings for part in (f"{tile}.npy", tile, overlap)))
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert [one["found"] for one in results] == [500] * 3
    assert min(one["iou"] for one in results) >= 0.99
    assert min(one["least"] for one in results) >= 0.95
    assert max(one["mb"] for one in results) < 300


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


def test_a_stopped_job_predicts_no_tile_twice(labels, expected, tmp_path):
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


def test_a_killed_process_can_be_continued(labels, expected, tmp_path):
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


def test_wrong_arguments_are_named(labels):
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
