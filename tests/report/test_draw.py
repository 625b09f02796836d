"""Objects and skeletons are drawn where they belong, at any scale; what is not visible is not drawn."""

import numpy as np
import pytest

from maskrcnn_ext.report.draw import DrawnObject, draw_objects, draw_skeleton, palette

RED = (0, 0, 255)


def test_a_mask_tints_its_inside_and_nothing_else():
    image = np.full((20, 30, 3), 100, np.uint8)
    polygon = [[5.0, 5.0, 25.0, 5.0, 25.0, 15.0, 5.0, 15.0]]
    picture = draw_objects(image, [DrawnObject(polygon, (5, 5, 25, 15), "", RED)])
    changed = (picture != image).any(axis=2)
    np.testing.assert_array_equal(changed[5:15, 5:25], True)
    assert not changed[:4].any()
    assert not changed[:, 27:].any()
    assert (image == 100).all(), "the image itself is left as it is"
    assert picture[10, 15].tolist() == [55, 55, 169], "45 % of red over 55 % of grey"


def test_a_box_is_drawn_for_an_object_without_mask_and_pictures_scale():
    image = np.zeros((20, 30, 3), np.uint8)
    picture = draw_objects(image, [DrawnObject(None, (5, 5, 25, 15), "thing", RED)], scale=4)
    assert picture.shape == (80, 120, 3)
    assert picture[40, 20, 2] > 200 > 100 > picture[40, 20, :2].max(), "an edge, softened"
    assert picture[40, 60].tolist() == [0, 0, 0]


def test_a_box_is_drawn_for_an_empty_mask():
    image = np.zeros((20, 30, 3), np.uint8)
    empty = {"size": [20, 30], "counts": [600]}
    box = draw_objects(image, [DrawnObject(None, (5, 5, 25, 15), "", RED)])
    np.testing.assert_array_equal(draw_objects(image, [DrawnObject(empty, (5, 5, 25, 15), "", RED)]), box)


def test_neighbouring_colours_differ():
    colors = [palette(index) for index in range(12)]
    assert min(np.abs(np.subtract(a, b)).sum() for i, a in enumerate(colors) for b in colors[:i]) > 60


GREEN = (0, 255, 0)


# A cross: centre, left, right, top, bottom.
CROSS = np.array([[100.5, 100.5, 1], [40.5, 100.5, 1], [160.5, 100.5, 1], [100.5, 40.5, 1], [100.5, 160.5, 1]])


LINKS = [(0, 1), (0, 2), (0, 3), (0, 4)]


def draw_cross(points, links=LINKS, size=201, **options):
    canvas = np.full((size, size, 3), 200, np.uint8)
    draw_skeleton(canvas, points, links, GREEN, **options)
    return canvas


def changed_pixels(canvas):
    return (canvas != 200).any(axis=2)


def test_lines_join_their_joints_and_nothing_else_changes():
    canvas = draw_cross(CROSS)
    assert all(canvas[100, x].tolist() == list(GREEN) for x in (70, 130))
    assert all(canvas[y, 100].tolist() == list(GREEN) for y in (70, 130))
    light = canvas[100, 40].tolist()
    assert light[1] == 255
    assert light[0] == light[2] > 100
    assert not changed_pixels(canvas)[:80, :80].any()
    rows, columns = np.nonzero(changed_pixels(canvas))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == pytest.approx((40, 160, 40, 160), abs=6)


@pytest.mark.parametrize("x", [100.5, 100.0, 97.25])
def test_coordinates_are_those_of_pixels_centres(x):
    """Detectron2's and COCO's evaluators call the centre of the first pixel 0.5; OpenCV calls it 0."""
    weights = np.abs(draw_cross(np.array([[x, 100.5, 1]]), []).astype(float) - 200).sum(axis=2)
    rows, columns = np.indices(weights.shape)
    assert np.average(columns + 0.5, weights=weights) == pytest.approx(x, abs=0.15)
    assert np.average(rows + 0.5, weights=weights) == pytest.approx(100.5, abs=0.15)


def test_scale_moves_the_points():
    canvas = draw_cross(CROSS, scale=0.5, size=101).astype(int)
    for x in (35, 65):
        assert canvas[50, x] == pytest.approx(GREEN, abs=60)
    assert canvas[50, 20, 1] == 255


@pytest.mark.parametrize(("score", "min_visible", "is_drawn"), [(0.04, 0.05, False), (0.06, 0.05, True), (0, 0, False)])
def test_keypoints_of_low_scores_are_left_out_with_their_lines(score, min_visible, is_drawn):
    points = CROSS.copy()
    points[1, 2] = score
    canvas = changed_pixels(draw_cross(points, min_visible=min_visible))
    assert canvas[100, 40] == canvas[100, 70] == is_drawn
    assert canvas[100, 160]
    assert canvas[100, 130]


def test_lines_grow_with_the_object():
    thickness = []
    for factor in (0.25, 1, 4):
        canvas = changed_pixels(draw_cross(CROSS * [factor, factor, 1], size=round(201 * factor)))
        thickness.append(int(canvas[:, round(70 * factor)].sum()))
    assert thickness[0] < thickness[1] < thickness[2]


def test_nothing_and_wild_numbers_are_no_fault():
    unseen = CROSS * [1, 1, 0]
    assert not changed_pixels(draw_cross(unseen)).any()
    assert not changed_pixels(draw_cross(np.zeros((0, 3)), [])).any()
    wild = CROSS.copy()
    wild[1], wild[2] = (1e12, -1e12, 1), (np.nan, 5, 1)
    canvas = changed_pixels(draw_cross(wild))
    assert canvas[100, 100]
    assert not canvas[100, 130]
    assert not canvas[:80, :80].any()


def test_of_labels_that_overlap_the_last_is_drawn():
    image = np.zeros((60, 200, 3), np.uint8)
    box, far = (5.0, 30.0, 25.0, 50.0), (120.0, 30.0, 140.0, 50.0)
    first, last, apart = (
        DrawnObject(None, *own) for own in ((box, "aa", RED), (box, "bb", (255, 0, 0)), (far, "c", RED))
    )
    picture = draw_objects(image, [first, last, apart])
    np.testing.assert_array_equal(picture[:29, :60], draw_objects(image, [last])[:29, :60])
    assert (picture[:29, 100:] == RED).all(axis=2).any()
    heights = [(draw_objects(image, [last], label_scale=scale)[:29] > 0).any(axis=(1, 2)).sum() for scale in (0.5, 0.9)]
    assert heights[1] > 1.5 * heights[0]
