"""Tiles of a data set are images: pixels, objects and ids, also of a listed part, and in an evaluation."""

import numpy as np
import pytest

from maskrcnn_ext.data.images.pixels import read_pixels
from maskrcnn_ext.data.registry.catalog import load_dataset
from maskrcnn_ext.data.registry.listed import listed_name, write_list
from maskrcnn_ext.data.registry.resolve import absolute_name, ensure_registered
from maskrcnn_ext.data.registry.tiled import split_tiled_name, tile_of, tiled_name
from maskrcnn_ext.errors import InputError
from tests.helpers.labelled_images import noise, write_data

PIXELS = noise(100, 180, 3)
# In the left tile only; whole in both, where they overlap; a tenth of it in the left tile.
OBJECTS = [(0, 0, 10, 10, 20, 20), (0, 0, 82, 40, 16, 16), (0, 0, 96, 70, 40, 20)]


@pytest.fixture
def data(tmp_path):
    return write_data(tmp_path / "data", [("a.png", PIXELS), ("small.png", noise(50, 60, 3))], OBJECTS)


def test_tiles_are_images(data):
    records = load_dataset(tiled_name(data, 100)).images
    assert [record.image_id for record in records] == ["1@0,0", "1@80,0", "2"]
    assert [record.extra.get("window") for record in records] == [[0, 0, 100, 100], [80, 0, 100, 100], None]
    for record, columns in zip(records[:2], (slice(0, 100), slice(80, 180)), strict=True):
        found = read_pixels({"file_name": record.file_name, **record.extra}, "RGB")
        np.testing.assert_array_equal(found, PIXELS[:, columns])


def test_a_data_set_of_small_images_stays_as_it_is(data):
    assert load_dataset(tiled_name(data, 200)).images == load_dataset(data).images


def test_objects_are_cut_and_small_rests_are_crowds(data):
    left, right, _ = load_dataset(tiled_name(data, 100)).images
    assert [(found.box, found.crowd) for found in left.annotations] == [
        ((10, 10, 30, 30), False),
        ((82, 40, 98, 56), False),
        ((96, 70, 100, 90), True),
    ]
    assert [(found.box, found.crowd) for found in right.annotations] == [
        ((2, 40, 18, 56), False),
        ((16, 70, 56, 90), False),
    ]


def test_a_list_of_tiles(data, tmp_path):
    name = tiled_name(data, 100)
    write_list(tmp_path / "part.txt", load_dataset(name).images[1:2])
    part = listed_name(name, tmp_path / "part.txt")
    assert [record.image_id for record in load_dataset(part).images] == ["1@80,0"]
    assert tile_of(part) == tile_of([part]) == 100
    assert tile_of(data) == tile_of([]) == 0
    assert absolute_name(part) == part


def test_detectron2_reads_them_and_an_evaluation_of_perfect_results_is_perfect(data):
    from detectron2.data import DatasetCatalog

    from maskrcnn_ext.evaluation.summary import evaluate

    name = tiled_name(data, 100)
    ensure_registered(name)
    dicts = DatasetCatalog.get(name)
    results = [
        {
            "image_id": record["image_id"],
            "category_id": 1,
            "score": 0.9,
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "segmentation": found["segmentation"],
        }
        for record in dicts
        for found in record["annotations"]
        for x0, y0, x1, y1 in [found["bbox"]]
    ]
    assert len(results) == 5
    assert evaluate(name, results)["tasks"]["bbox"]["AP"] == pytest.approx(100)


def test_no_side_is_one_line():
    with pytest.raises(InputError, match=r"@tiles:many is no side in pixels: write a@tiles:1024"):
        split_tiled_name("a@tiles:many")


def test_tiles_after_and_before_other_options(data, tmp_path):
    (tmp_path / "one.txt").write_text("1\n")
    assert len(load_dataset(tiled_name(listed_name(data, tmp_path / "one.txt"), 100)).images) == 2
    (tmp_path / "map.yaml").write_text("map: {cell: nucleus}\n")
    for name in (
        f"{tiled_name(data, 100)}@map:{tmp_path}/map.yaml",
        tiled_name(f"{data}@map:{tmp_path}/map.yaml", 100),
    ):
        found = load_dataset(name)
        assert (found.classes, len(found.images)) == (["nucleus"], 3)
        assert tile_of(name) == 100
        assert absolute_name(name) == name
