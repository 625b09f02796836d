"""Detections of tiles are merged: golden cases on two tiles, and shapes of all kinds against the ground truth."""

import numpy as np
import pytest
from pycocotools import mask as mask_util
from scipy import ndimage

from maskrcnn_ext.inference.tiling.merge import merge_tiles
from maskrcnn_ext.inference.tiling.predictor import predict_tiled
from maskrcnn_ext.inference.tiling.windowed import WindowedImage
from maskrcnn_ext.ops.tile_grid import TileGrid
from tests.helpers import tile_oracle

# Two tiles of 100 x 100 that share 20 columns, 80 to 100; the left one's core ends at 90.
GRID = TileGrid(180, 100, 100, 0.2)


def result(*boxes, score=0.9, category=0, with_mask=True):
    """A detection in a tile, its mask the rectangles (x0, y0, x1, y1) in pixels of the tile."""
    mask = np.zeros((100, 100), np.uint8)
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] = 1
    rle = mask_util.encode(np.asfortranarray(mask))
    found = {"image_id": None, "category_id": category, "score": score, "bbox": mask_util.toBbox(rle).tolist()}
    if with_mask:
        found["segmentation"] = {"size": [100, 100], "counts": rle["counts"].decode()}
    return found


def merge(left, right, agreement=0.5):
    return merge_tiles([left, right], GRID, agreement)


def pixels(found):
    return mask_util.decode(found["segmentation"])


def rectangle(*boxes):
    mask = np.zeros((100, 180), np.uint8)
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] = 1
    return mask


def test_a_whole_detection_replaces_a_cut_one():
    whole, cut = result((50, 20, 95, 40), score=0.6), result((0, 21, 15, 39), score=0.9)
    (found,) = merge([whole], [cut])
    np.testing.assert_array_equal(pixels(found), rectangle((50, 20, 95, 40)))
    assert (found["bbox"], found["score"]) == ([50, 20, 45, 20], 0.9)


def test_of_two_whole_detections_the_one_with_more_margin_is_kept():
    (found,) = merge([result((82, 20, 94, 40), score=0.9)], [result((4, 20, 13, 40), score=0.5)])
    assert (found["bbox"], found["score"]) == ([82, 20, 12, 20], 0.9)


def test_an_object_on_the_seam_is_assembled_from_both_tiles():
    (found,) = merge([result((20, 20, 100, 40))], [result((0, 22, 70, 42), score=0.95)])
    np.testing.assert_array_equal(pixels(found), rectangle((20, 20, 90, 40), (90, 22, 150, 42)))
    assert (found["bbox"], found["score"]) == ([20, 20, 130, 22], 0.95)


def test_a_margin_that_another_tile_shows_better_is_left_out():
    assert merge([], [result((0, 20, 9, 40))]) == []
    assert merge([result((95, 20, 100, 40))], []) == []


def test_a_cut_detection_is_kept_if_no_other_covers_it():
    (found,) = merge([], [result((0, 20, 30, 40))])
    np.testing.assert_array_equal(pixels(found), rectangle((80, 20, 110, 40)))


def test_neighbours_that_touch_stay_two():
    left = [result((20, 20, 100, 40)), result((20, 40, 100, 60))]
    right = [result((0, 20, 60, 40)), result((0, 40, 60, 60))]
    found = merge(left, right)
    assert sorted(one["bbox"] for one in found) == [[20, 20, 120, 20], [20, 40, 120, 20]]


def test_two_whole_objects_stay_two_though_the_other_tile_sees_one():
    both = result((84, 20, 95, 40))
    halves = [result((4, 20, 15, 32), score=0.8), result((4, 32, 15, 40), score=0.7)]
    found = merge([both], halves, agreement=0.3)
    assert sorted(one["bbox"] for one in found) == [[84, 20, 11, 20], [84, 32, 11, 8]]


def test_parts_that_are_joined_in_the_next_tile_are_one_object():
    """A U that lies on its side: two arms on the left, what joins them on the right."""
    arms = [result((20, 20, 100, 30), score=0.5), result((20, 60, 100, 66), score=0.7)]
    base = result((0, 20, 60, 30), (0, 60, 60, 66), (50, 20, 60, 66), score=0.6)
    (found,) = merge(arms, [base])
    np.testing.assert_array_equal(pixels(found), rectangle((20, 20, 140, 30), (20, 60, 140, 66), (130, 20, 140, 66)))
    assert found["score"] == 0.7


def test_classes_are_not_merged_and_agreement_is_a_parameter():
    left, right = result((20, 20, 100, 40)), result((0, 22, 70, 42), category=1)
    assert len(merge([left], [right])) == 2
    right["category_id"] = 0
    assert len(merge([left], [right], agreement=0.95)) == 2
    assert len(merge([left], [right], agreement=0.8)) == 1


def test_boxes_are_merged_without_masks():
    left, right = result((20, 20, 100, 40), with_mask=False), result((0, 22, 70, 42), score=0.5, with_mask=False)
    other = result((30, 60, 60, 80), score=0.3, with_mask=False)
    found = merge([left], [right, other])
    assert [one["bbox"] for one in found] == [[20, 20, 130, 22], [110, 60, 30, 20]]
    assert all("segmentation" not in one for one in found)


def test_keypoints_move_with_their_tile_and_the_most_confident_are_kept():
    left = {**result((20, 20, 100, 40)), "keypoints": [30, 30, 0.9, 99, 30, 0.1]}
    right = {**result((0, 20, 70, 40)), "keypoints": [0, 30, 0.2, 60, 30, 0.8]}
    whole = {**result((30, 60, 60, 80), score=0.1), "keypoints": [40, 70, 0.3, 50, 70, 0.4]}
    found = merge([left], [right, whole])
    assert [one["keypoints"] for one in found] == [[30, 30, 0.9, 140, 30, 0.8], [120, 70, 0.3, 130, 70, 0.4]]


def test_scores_of_masks_stay_with_the_object():
    left = {**result((20, 20, 100, 40), score=0.5), "mask_score": 0.1}
    right = {**result((0, 20, 70, 40), score=0.6), "mask_score": 0.2}
    (found,) = merge([left], [right])
    assert (found["score"], found["mask_score"]) == (0.6, 0.2)


def test_no_detections_and_empty_masks():
    assert merge([], []) == []
    empty = result((10, 10, 20, 20))
    empty["segmentation"]["counts"] = mask_util.encode(np.zeros((100, 100), np.uint8, order="F"))["counts"].decode()
    assert merge([empty], []) == []


def test_the_detections_of_a_single_tile_are_unchanged():
    found = [result((0, 20, 100, 40), score=0.3), result((0, 10, 90, 40), score=0.7)]
    merged = merge_tiles([found], TileGrid(100, 100, 128, 0.2))
    assert merged == found[::-1]


def components(tiles):
    """As :func:`tile_oracle.detect`, but what is connected outside of the tile is several objects, as a model would have it."""
    apart = []
    for tile in tiles:
        labels = np.zeros(tile.shape[:2], np.uint16)
        for value in np.unique(tile[:, :, 0])[1:]:
            parts, _ = ndimage.label(tile[:, :, 0] == value)
            labels += np.where(parts, parts + labels.max(), 0).astype(np.uint16)
        apart.append(labels[:, :, None])
    return tile_oracle.detect(apart)


@pytest.mark.parametrize("detect", [tile_oracle.detect, components])
@pytest.mark.parametrize("sigma", [8, 25])
def test_objects_of_any_shape_and_larger_than_a_tile_are_found_once(detect, sigma):
    rng = np.random.default_rng(sigma)
    field = ndimage.gaussian_filter(rng.standard_normal((700, 700)), sigma)
    labels, _ = ndimage.label(field > 0.6 * field.std())
    areas = np.bincount(labels.ravel())
    labels = np.unique(np.where(areas[labels] < 150, 0, labels), return_inverse=True)[1].reshape(labels.shape)
    labels = labels.astype(np.uint16)
    if sigma == 25:
        assert np.bincount(labels.ravel())[1:].max() > 192**2  # more than a tile
    image = np.dstack([labels, rng.integers(0, 9, labels.shape).astype(np.uint16)])
    found = predict_tiled(detect, WindowedImage(image), tile=192, overlap=0.25)
    ious = tile_oracle.compare(found, labels)
    assert len(found) == labels.max() == len(ious)
    assert ious.mean() > 0.96
    assert ious.min() > 0.75  # small ones at the border of the image lose most
