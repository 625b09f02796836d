"""Annotations cut at the edges of tiles: outlines, boxes and keypoints inside a tile."""

import cv2
import numpy as np
import pytest
from detectron2.structures import BoxMode
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn_ext.data.mapping.tile_cuts import cut_annotation
from tests.helpers.tiles import GRID, HEIGHT, WIDTH, annotation, mask_of, polygon, rle_of


def test_polygons_are_cut_and_have_tight_boxes():
    found = cut_annotation(annotation(70, 20, 130, 40), GRID)
    assert {index: pixels for index, (pixels, _) in found.items()} == {0: 30 * 20, 1: 50 * 20}
    assert [view["bbox"] for _, view in found.values()] == [[70, 20, 100, 40], [0, 20, 50, 40]]
    assert all(view["bbox_mode"] == BoxMode.XYXY_ABS for _, view in found.values())
    for index, columns in ((0, slice(70, 100)), (1, slice(0, 50))):
        expected = np.zeros((100, 100), np.uint8)
        expected[20:40, columns] = 1
        np.testing.assert_array_equal(mask_of(found[index][1]["segmentation"]), expected)


def test_whole_objects_of_a_tile_are_only_moved():
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
def test_masks_are_cut_exactly(seed, as_array):
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
def test_polygons_of_any_shape_cover_the_pixels_that_they_did(radii, x, y):
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


def test_an_outline_that_crosses_itself_has_both_its_halves():
    bow_tie = [70.0, 20.0, 130.0, 60.0, 130.0, 20.0, 70.0, 60.0]
    whole = mask_of([bow_tie], HEIGHT, WIDTH)
    for index, (_, view) in cut_annotation(annotation(70, 20, 130, 60, segmentation=[bow_tie]), GRID).items():
        shown = mask_of(view["segmentation"])
        assert (shown != whole[:, 80 * index :][:, :100]).mean() < 0.01 < shown.mean()


def test_boxes_replace_missing_and_broken_outlines():
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


def test_keypoints_outside_of_the_tile_are_unlabelled():
    given = annotation(70, 20, 130, 40, keypoints=[75.5, 30, 2, 90, 30, 1, 120, 30, 2, 0, 0, 0])
    found = cut_annotation(given, GRID)
    assert found[0][1]["keypoints"] == [75.5, 30, 2, 90, 30, 1, 0, 0, 0, 0, 0, 0]
    assert found[1][1]["keypoints"] == [0, 0, 0, 10, 30, 1, 40, 30, 2, 0, 0, 0]


@pytest.mark.parametrize("wrong", [{"bbox": [1, 2, 3]}, {"bbox": [1, 2, float("nan"), 4]}, {"keypoints": [1, 2]}])
def test_broken_boxes_and_keypoints_are_errors(wrong):
    with pytest.raises((KeyError, TypeError, ValueError, AssertionError)):
        cut_annotation(annotation(70, 20, 130, 40, **wrong), GRID)
