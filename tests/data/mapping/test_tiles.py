"""Training on tiles: pixels and objects of a tile, objects that are left out, and the override."""

import copy
import logging

import cv2
import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from detectron2.utils.events import EventStorage
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn_ext import InputError, SafeMapper, get_config, get_dataset_dicts, get_tiled_dataset_dicts
from maskrcnn_ext.config.overrides import apply_overrides
from maskrcnn_ext.data.mapping.tiles import cut_annotation
from maskrcnn_ext.ops.tile_grid import TileGrid

HEIGHT, WIDTH = 100, 180
# Two tiles, which share 20 columns from 80 on.
GRID = TileGrid(WIDTH, HEIGHT, 100, 0.2)


def polygon(x0, y0, x1, y1):
    return [float(v) for v in (x0, y0, x1, y0, x1, y1, x0, y1)]


def annotation(x0, y0, x1, y1, **rest):
    return {
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": 0,
        "iscrowd": 0,
        "segmentation": [polygon(x0, y0, x1, y1)],
        **rest,
    }


def rle_of(mask):
    rle = mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {**rle, "counts": rle["counts"].decode()}


def mask_of(segmentation, height=100, width=100):
    if isinstance(segmentation, dict):
        return mask_util.decode(segmentation)
    return mask_util.decode(mask_util.merge(mask_util.frPyObjects(segmentation, height, width)))


class TestViews:
    def test_polygons_are_cut_and_have_tight_boxes(self):
        found = cut_annotation(annotation(70, 20, 130, 40), GRID)
        assert {index: pixels for index, (pixels, _) in found.items()} == {0: 30 * 20, 1: 50 * 20}
        assert [view["bbox"] for _, view in found.values()] == [[70, 20, 100, 40], [0, 20, 50, 40]]
        assert all(view["bbox_mode"] == BoxMode.XYXY_ABS for _, view in found.values())
        for index, columns in ((0, slice(70, 100)), (1, slice(0, 50))):
            expected = np.zeros((100, 100), np.uint8)
            expected[20:40, columns] = 1
            np.testing.assert_array_equal(mask_of(found[index][1]["segmentation"]), expected)

    def test_what_a_tile_shows_whole_is_moved_and_else_as_it_was(self):
        given = annotation(110, 20, 150, 40, extra="kept")
        given["bbox"] = [109.5, 19.25, 41.0, 21.5]  # looser than the outline
        ((index, (_, view)),) = cut_annotation(given, GRID).items()
        assert index == 1
        assert view == {
            **given,
            "bbox": [29.5, 19.25, 70.5, 40.75],
            "bbox_mode": BoxMode.XYXY_ABS,
            "segmentation": [polygon(30, 20, 70, 40)],
        }

    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 2**32 - 1), st.booleans())
    def test_masks_are_cut_exactly(self, seed, as_array):
        mask = np.random.default_rng(seed).integers(0, 2, (HEIGHT, WIDTH)).astype(np.uint8)
        outline = mask if as_array else rle_of(mask)
        found = cut_annotation(annotation(0, 0, WIDTH, HEIGHT, segmentation=outline), GRID)
        for index, (x, y, width, height) in enumerate(GRID.windows):
            pixels, view = found[index]
            part = mask[y : y + height, x : x + width]
            np.testing.assert_array_equal(mask_of(view["segmentation"]), part)
            assert pixels == part.sum()

    @settings(max_examples=25, deadline=None)
    @given(st.lists(st.floats(5, 60), min_size=4, max_size=12), st.floats(-10, 190), st.floats(-10, 110))
    def test_polygons_of_any_shape_cover_the_pixels_that_they_did(self, radii, x, y):
        """Stars, also such that leave the image."""
        angles = np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
        points = np.stack([x + radii * np.cos(angles), y + radii * np.sin(angles)], axis=1)
        outline = [points.ravel().tolist()]
        whole = mask_of(outline, HEIGHT, WIDTH)
        found = cut_annotation(annotation(*points.min(axis=0), *points.max(axis=0), segmentation=outline), GRID)
        for index, (left, _, width, _) in enumerate(GRID.windows):
            part = whole[:, left : left + width]
            shown = mask_of(found[index][1]["segmentation"]) if index in found else np.zeros_like(part)
            # A line that is cut is rasterised from another point on: along outlines single pixels differ.
            assert not cv2.erode((shown != part).astype(np.uint8), np.ones((3, 3), np.uint8)).any()

    def test_an_outline_that_crosses_itself_has_both_its_halves(self):
        bow_tie = [70.0, 20.0, 130.0, 60.0, 130.0, 20.0, 70.0, 60.0]
        whole = mask_of([bow_tie], HEIGHT, WIDTH)
        for index, (_, view) in cut_annotation(annotation(70, 20, 130, 60, segmentation=[bow_tie]), GRID).items():
            shown = mask_of(view["segmentation"])
            assert (shown != whole[:, 80 * index :][:, :100]).mean() < 0.01 < shown.mean()

    def test_boxes_stand_for_objects_without_an_outline_and_with_a_broken_one(self):
        for segmentation in (
            None,
            [],
            [[1, 2, 3]],
            {"size": [4, 4], "counts": "0"},
            {"size": [HEIGHT, WIDTH], "counts": "5"},
        ):
            found = cut_annotation(annotation(70, 20, 130, 40, segmentation=segmentation), GRID)
            assert [(pixels, view["bbox"]) for pixels, view in found.values()] == [
                (600, [70, 20, 100, 40]),
                (1000, [0, 20, 50, 40]),
            ]
            assert all("segmentation" not in view for _, view in found.values())

    def test_keypoints_outside_of_the_tile_are_unlabelled(self):
        given = annotation(70, 20, 130, 40, keypoints=[75.5, 30, 2, 90, 30, 1, 120, 30, 2, 0, 0, 0])
        found = cut_annotation(given, GRID)
        assert found[0][1]["keypoints"] == [75.5, 30, 2, 90, 30, 1, 0, 0, 0, 0, 0, 0]
        assert found[1][1]["keypoints"] == [0, 0, 0, 10, 30, 1, 40, 30, 2, 0, 0, 0]

    @pytest.mark.parametrize("wrong", [{"bbox": [1, 2, 3]}, {"bbox": [1, 2, float("nan"), 4]}, {"keypoints": [1, 2]}])
    def test_broken_boxes_and_keypoints_are_errors(self, wrong):
        with pytest.raises((KeyError, TypeError, ValueError, AssertionError)):
            cut_annotation(annotation(70, 20, 130, 40, **wrong), GRID)


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


def test_tiles_of_a_window_lie_in_it(data_set):
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
