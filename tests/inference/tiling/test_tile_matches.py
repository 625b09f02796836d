"""Detections of neighbouring tiles are grouped by the agreement of their masks where both tiles see."""

from maskrcnn_ext.inference.tiling.tile_detections import make_tile_detections
from maskrcnn_ext.inference.tiling.tile_matches import group_tile_detections
from tests.inference.tiling.test_tile_detections import GRID, result


def groups(left, right, min_agreement=0.5):
    """The groups, each detection as its tile and the left edge of its box."""
    grouped = group_tile_detections(make_tile_detections([left, right], GRID), GRID, min_agreement)
    return [[(detection.tile, detection.box[0]) for detection in group] for group in grouped]


def test_two_views_of_one_object_are_one_group():
    assert groups([result(20, 20, 100, 40)], [result(0, 22, 70, 42)]) == [[(0, 20), (1, 80)]]


def test_the_least_agreement_decides():
    left, right = [result(20, 20, 100, 40)], [result(0, 30, 70, 50)]  # an IoU of a third where both tiles see
    assert len(groups(left, right, 0.3)) == 1
    assert len(groups(left, right, 0.6)) == 2


def test_other_classes_are_other_objects():
    other = {**result(0, 22, 70, 42), "category_id": 1}
    assert groups([result(20, 20, 100, 40)], [other]) == [[(0, 20)], [(1, 80)]]


def test_parts_of_a_cut_object_join_the_one_that_covers_them():
    arms = [result(20, 20, 100, 30), result(20, 50, 100, 60)]
    assert groups(arms, [result(0, 18, 70, 62)]) == [[(0, 20), (1, 80), (0, 20)]]


def test_whole_objects_of_one_tile_are_never_joined():
    whole = [result(82, 20, 94, 30), result(82, 32, 94, 42)]
    assert groups(whole, [result(0, 18, 20, 44)], 0.2) == [[(0, 82), (1, 80)], [(0, 82)]]


def test_without_detections_there_are_no_groups():
    assert groups([], []) == []
