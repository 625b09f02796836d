"""Training on tiles: pixels and objects of a tile, objects that are left out, and the override."""

import copy
import logging

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.events import EventStorage

from maskrcnn_ext import InputError, SafeMapper, get_config, get_dataset_dicts, get_tiled_dataset_dicts
from maskrcnn_ext.config.overrides import apply_overrides
from maskrcnn_ext.ops.tile_grid import TileGrid
from tests.helpers.tiles import HEIGHT, WIDTH, annotation


@pytest.fixture
def data_set(tmp_path):
    """Registers records by name, and forgets them after the test."""
    names = []

    def make(*annotations, **record):
        file = tmp_path / "image.png"
        if not file.exists():
            pixels = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            cv2.imwrite(str(file), pixels)
        names.append(f"tiles_test_{len(names)}")
        whole = {"file_name": str(file), "image_id": 17, "height": HEIGHT, "width": WIDTH, **record}
        records = [{**whole, "annotations": list(found)} for found in annotations]
        DatasetCatalog.register(names[-1], lambda: copy.deepcopy(records))
        MetadataCatalog.get(names[-1]).thing_classes = ["thing"]
        return names[-1]

    yield make
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def tiled(name, **arguments):
    return get_tiled_dataset_dicts(name, **{"tile": 100, "overlap": 0.2, **arguments})


def test_the_mapper_reads_the_tiles_with_their_ground_truth(data_set):
    name = data_set([annotation(70, 20, 130, 40), annotation(5, 50, 15, 60)])
    records = tiled(name)
    assert [record["image_id"] for record in records] == ["17@0,0", "17@80,0"]
    assert [record["window"] for record in records] == [[0, 0, 100, 100], [80, 0, 100, 100]]
    mapper = SafeMapper(is_train=True, augmentations=[], image_format="BGR", use_instance_mask=True, strict=True)
    left, right = map(mapper, records)
    whole = cv2.imread(records[0]["file_name"])
    np.testing.assert_array_equal(right["image"].permute(1, 2, 0).numpy(), whole[:, 80:])
    assert left["instances"].gt_boxes.tensor.tolist() == [[70, 20, 100, 40], [5, 50, 15, 60]]
    assert right["instances"].gt_boxes.tensor.tolist() == [[0, 20, 50, 40]]
    assert len(right["instances"].gt_masks) == 1


def test_an_object_mostly_outside_is_left_out_and_its_tile_is_not_an_empty_example(data_set):
    name = data_set([annotation(20, 20, 90, 40), annotation(10, 50, 82, 60)])
    assert [len(record["annotations"]) for record in tiled(name, min_visible=0.1)] == [2, 1]
    assert [len(record["annotations"]) for record in tiled(name, min_visible=0)] == [2, 2]
    assert [record["image_id"] for record in tiled(name, min_visible=0.3, empty_share=1)] == ["17@0,0"]


def test_an_object_larger_than_any_tile_is_in_all_that_it_fills(data_set):
    """A lake of 1000 x 1000 in tiles of 100: each shows less than 2 % of it."""
    name = data_set([annotation(0, 0, 1000, 1000)], height=1000, width=1000)
    records = tiled(name)
    assert len(records) == len(TileGrid(1000, 1000, 100, 0.2).windows) > 100
    assert all(len(record["annotations"]) == 1 for record in records)


def test_a_share_of_the_tiles_shows_nothing_and_always_the_same(data_set, caplog):
    name = data_set([annotation(100 * i + 20, 20, 100 * i + 40, 40) for i in range(9)], height=1000, width=1000)
    everything = tiled(name, empty_share=1)
    assert len(everything) == len(TileGrid(1000, 1000, 100, 0.2).windows)
    with caplog.at_level(logging.INFO, logger="maskrcnn_ext.data.mapping.tiles"):
        some = tiled(name, empty_share=0.25)
    empty = [record["image_id"] for record in some if not record["annotations"]]
    assert len(empty) / len(some) == pytest.approx(0.25, abs=0.03)
    assert f"{len(some)} tiles" in caplog.text
    assert [record["image_id"] for record in some] == [record["image_id"] for record in tiled(name, empty_share=0.25)]
    rows = {int(own.split(",")[1]) for own in empty}
    assert len(rows) > 2  # not simply the first ones
    assert all(record["annotations"] for record in tiled(name, empty_share=0))


def test_crowds_and_images_without_objects(data_set):
    crowd = annotation(10, 20, 40, 40, iscrowd=1)
    name = data_set([crowd, annotation(110, 20, 150, 40)], [])
    assert [record["image_id"] for record in tiled(name, empty_share=1)] == ["17@80,0"]
    assert len(tiled(name, empty_share=1, filter_empty=False)) == 3  # both tiles of the second image


def test_an_image_no_larger_than_a_tile_stays_as_it_is(data_set):
    name = data_set([annotation(70, 20, 130, 40)])
    assert tiled(name, tile=180) == get_dataset_dicts(name)


def test_tiles_of_a_window_are_inside_it(data_set):
    name = data_set([annotation(70, 20, 130, 40)], window=[1000, 2000, WIDTH, HEIGHT])
    assert [record["window"] for record in tiled(name)] == [[1000, 2000, 100, 100], [1080, 2000, 100, 100]]


def test_tiles_with_too_few_keypoints_are_left_out(data_set):
    name = data_set([annotation(70, 20, 130, 40, keypoints=[75, 30, 2, 78, 30, 2])])
    assert [record["image_id"] for record in tiled(name, min_keypoints=1)] == ["17@0,0"]


def test_wrong_arguments_are_errors(data_set):
    name = data_set([annotation(70, 20, 130, 40)])
    for wrong in ({"tile": 10}, {"overlap": 0}, {"min_visible": 2}, {"empty_share": -1}):
        with pytest.raises(InputError, match=f"{next(iter(wrong))}="):
            tiled(name, **wrong)
    with pytest.raises(InputError, match=r"image 17, annotation 0: .*NaN"):
        tiled(data_set([annotation(70, 20, float("nan"), 40)]))
    with pytest.raises(InputError, match="semantic"):
        tiled(data_set([annotation(70, 20, 130, 40)], sem_seg_file_name="a.png"))
    with pytest.raises(InputError, match="no tile"):
        tiled(data_set([annotation(70, 20, 130, 40, iscrowd=1)]), filter_empty=False)


def test_it_is_one_override_of_a_config(shapes):
    """Detectron2's loader draws from tiles, and the model trains on them."""
    cfg = get_config("mask_rcnn_r18_fpn_scratch")
    apply_overrides(
        cfg,
        [
            "dataloader.train.dataset._target_=maskrcnn_ext.get_tiled_dataset_dicts",
            "dataloader.train.dataset.tile=64",
            "dataloader.train.dataset.empty_share=0.2",
            f"dataloader.train.dataset.names='coco:{shapes}@{shapes.parent / 'images'}'",
            "dataloader.train.mapper._target_=maskrcnn_ext.SafeMapper",
            "dataloader.train.mapper.instance_mask_format=bitmask",
            "dataloader.train.mapper.augmentations=[]",
            "dataloader.train.total_batch_size=2",
            "dataloader.train.num_workers=0",
        ],
    )
    batch = next(iter(instantiate(cfg.dataloader.train)))
    assert [tuple(image["image"].shape) for image in batch] == [(3, 64, 64)] * 2
    with EventStorage():
        losses = instantiate(cfg.model)(batch)
    assert all(torch.isfinite(loss) for loss in losses.values())
