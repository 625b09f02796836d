"""Transforms by maps of pixels: compared with Detectron2's own where the map is a flip or a crop, and with the drawn pixels."""

import numpy as np
import pytest
from detectron2.data import transforms as T

from maskrcnn_ext import InputError
from maskrcnn_ext.data.mapping.augmentation.pixel_map import (
    MirroringPixelMapTransform,
    find_projection,
    transform_from_map,
)

HEIGHT, WIDTH = 40, 60
IMAGE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
POINTS = np.array([[10.0, 12.0], [40.5, 20.25], [30.0, 33.0]])


def make_transform(change, size=(HEIGHT, WIDTH)):
    """The transform of an image whose pixel (x, y) shows ``change(x, y)`` of the input."""
    x, y = np.meshgrid(np.arange(size[1], dtype=np.float32), np.arange(size[0], dtype=np.float32))
    sources = np.stack(change(x, y), axis=-1).astype(np.float32)
    return transform_from_map(IMAGE, np.zeros((*size, 3), np.uint8), sources)


def bend(x, y):
    return x + 4 * np.sin(y / 5), y + 3 * np.sin(x / 7)


@pytest.mark.parametrize(
    ("change", "size", "native"),
    [
        (lambda x, y: (x, y), (HEIGHT, WIDTH), T.NoOpTransform()),
        (lambda x, y: (WIDTH - 1 - x, y), (HEIGHT, WIDTH), T.HFlipTransform(WIDTH)),
        (lambda x, y: (x, HEIGHT - 1 - y), (HEIGHT, WIDTH), T.VFlipTransform(HEIGHT)),
        (lambda x, y: (x + 5, y + 7), (30, 40), T.CropTransform(5, 7, 40, 30)),
    ],
    ids=["nothing", "horizontal flip", "vertical flip", "crop"],
)
def test_flips_and_crops_are_those_of_detectron2(change, size, native):
    transform = make_transform(change, size)
    assert not transform.bends
    assert transform.output_size == size
    np.testing.assert_array_equal(transform.apply_segmentation(IMAGE), native.apply_segmentation(IMAGE.copy()))
    np.testing.assert_allclose(transform.apply_coords(POINTS), native.apply_coords(POINTS.copy()), atol=1e-6)
    boxes = np.array([[10.0, 12.0, 30.0, 33.0]])
    np.testing.assert_allclose(transform.apply_box(boxes), native.apply_box(boxes.copy()), atol=1e-6)


def test_a_mirrored_image_is_a_flip_for_detectron2():
    """Detectron2 exchanges left and right keypoints for this class."""
    for change, mirrors in (
        (lambda x, y: (WIDTH - 1 - x, y), True),
        (lambda x, y: (x, HEIGHT - 1 - y), True),
        (lambda x, y: (WIDTH - 1 - x, HEIGHT - 1 - y), False),
        (bend, False),
    ):
        transform = make_transform(change)
        assert isinstance(transform, MirroringPixelMapTransform) == isinstance(transform, T.HFlipTransform) == mirrors


def test_the_image_itself_is_the_stored_result():
    transform = make_transform(lambda x, y: (x, y))
    assert not transform.apply_image(IMAGE).any()
    np.testing.assert_array_equal(transform.apply_image(IMAGE.copy()), IMAGE)


def test_pixels_without_a_source_are_zero_and_polygons_are_clipped():
    def shift(x, y):
        return np.where(x < 20, np.nan, x - 20), y

    transform = make_transform(shift)
    moved = transform.apply_segmentation(IMAGE)
    assert not moved[:, :20].any()
    np.testing.assert_array_equal(moved[:, 20:], IMAGE[:, :40])
    (polygon,) = transform.apply_polygons([np.array([[10.0, 5], [50, 5], [50, 15], [10, 15]])])
    np.testing.assert_allclose([polygon.min(axis=0), polygon.max(axis=0)], [[30, 5], [60, 15]])


def test_a_bent_map_moves_points_and_boxes_to_the_pixels_that_show_them():
    transform = make_transform(bend)
    assert transform.bends
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[10:30, 15:45] = 1
    ys, xs = np.nonzero(transform.apply_segmentation(mask))
    shown = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
    np.testing.assert_allclose(transform.apply_box(np.array([[15.0, 10, 45, 30]]))[0], shown, atol=1)
    for point, moved in zip(POINTS, transform.apply_coords(POINTS), strict=True):
        column, row = (moved - 0.5).astype(int)
        assert np.abs(transform.sources[row, column] + 0.5 - point).max() < 1.5
    with pytest.raises(InputError, match="cannot move polygons"):
        transform.apply_polygons([POINTS])
    with pytest.raises(NotImplementedError):
        transform.inverse()


def test_an_output_that_shows_nothing_has_no_objects():
    transform = make_transform(lambda x, y: (x + np.nan, y + np.nan))
    assert transform.projection is None
    assert not transform.bends
    assert transform.apply_polygons([POINTS]) == []
    assert not transform.apply_segmentation(IMAGE).any()
    assert (transform.apply_coords(POINTS) < 0).all()
    assert transform.apply_box(np.array([[1.0, 2, 30, 30]])).tolist() == [[0, 0, 0, 0]]


def test_projections_are_found_and_bends_recognised():
    points = np.random.default_rng(0).uniform(0, 100, (200, 2))
    for matrix in (
        [[0.9, -0.3, 5], [0.2, 1.1, -7], [0, 0, 1]],
        [[0.9, -0.3, 5], [0.2, 1.1, -7], [0.002, -0.001, 1]],
    ):
        moved = np.concatenate([points, np.ones((200, 1))], axis=1) @ np.transpose(matrix)
        found = find_projection(points, moved[:, :2] / moved[:, 2:])
        assert not found.bends
        np.testing.assert_allclose(found.matrix / found.matrix[2, 2], matrix, rtol=1e-3, atol=1e-4)
    assert find_projection(points, points + 3 * np.sin(points[:, ::-1] / 5)).bends
    few = find_projection(points[:3], points[:3])
    assert (few.matrix, few.bends) == (None, False)
