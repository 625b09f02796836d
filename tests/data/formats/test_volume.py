"""Label maps of volumes: classes of values, the objects in a slice, and the comparison of grids."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from maskrcnn_ext import InputError
from maskrcnn_ext.data.formats.volume import (
    connected_parts,
    count_parts,
    label_table,
    level_extra,
    pick_plane,
    same_grid,
    whole_numbers,
)
from maskrcnn_ext.ops.rle import encode_labels

FILE = Path("l.nii")


@pytest.mark.parametrize(
    ("arguments", "names", "categories"),
    [
        ((None, None, "value"), ["object"], {}),
        ((None, None, "component"), ["object"], {1: 0}),
        ((["liver", "spleen"], None, "value"), ["liver", "spleen"], {1: 0, 2: 1}),
        ((None, {"1": "bone", 2: None, 7: "bone"}, "value"), ["bone"], {1: 0, 2: None, 7: 0}),
        ((["disc", "bone"], {3: "bone"}, "value"), ["disc", "bone"], {3: 1}),
    ],
)
def test_values_have_classes(arguments, names, categories):
    table = label_table(*arguments)
    assert (table.names, table.categories, table.per_value) == (names, categories, arguments[2] == "value")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["bone"], {1: "bone", 2: "skin"}, "value"), "`values` makes 2 a 'skin', expected one of the classes bone"),
        ((None, {"one": "bone"}, "value"), "expected a class name for every label value"),
        ((None, ["bone"], "value"), "expected a class name for every label value"),
        ((None, {1: None}, "value"), "`values` names no class"),
        ((None, None, "pixel"), "`instances` is 'pixel', expected 'value' or 'component'"),
    ],
)
def test_wrong_classes_are_errors(arguments, message):
    with pytest.raises(InputError, match=message):
        label_table(*arguments)


def test_objects_are_values_or_connected_components():
    labels = np.zeros((6, 8), np.int32)
    labels[0:2, 0:3] = labels[2, 3] = 1  # they touch at a corner, which connects them
    labels[4:6, 6:8] = 1
    labels[5, 0] = 2
    boxes = {}
    for instances in ("value", "component"):
        found = label_table(["a", "b"], None, instances).annotations(labels, "l.nii")
        boxes[instances] = [(one.category, one.id, one.box) for one in found]
    assert boxes["value"] == [(0, 1, (0, 0, 8, 6)), (1, 2, (0, 5, 1, 6))]
    assert boxes["component"] == [(0, 1, (0, 0, 4, 3)), (0, 1, (6, 4, 8, 6)), (1, 2, (0, 5, 1, 6))]
    ignoring = label_table(None, {1: None, 2: "b"}, "value")
    assert [one.id for one in ignoring.annotations(labels, "l.nii")] == [2]
    assert ignoring.annotations(labels * 0, "l.nii") == []
    with pytest.raises(InputError, match=r"l\.nii: slice 4: label value 2 has no class \(those with one: 1\)"):
        label_table(["a"], None, "component").annotations(labels, "l.nii: slice 4")


def test_the_level_is_checked():
    assert level_extra(None) == {}
    assert level_extra((50, 400)) == {"level": [50, 400]}
    for level in ((50,), 50, ("a", "b"), (1, 2, 3)):
        with pytest.raises(InputError, match=r"expected \(center, width\)"):
            level_extra(level)
    for width in (0, -1, float("nan")):
        with pytest.raises(InputError, match=r"`level` has the width .*, expected more than 0"):
            level_extra((50, width))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32, np.float64, bool])
def test_label_values_become_integers(dtype):
    found = whole_numbers(np.array([[0, 1]], dtype), FILE)
    assert found.dtype.kind in "iub"
    assert found.tolist() == [[0, 1]]
    assert whole_numbers(np.zeros((0, 3), dtype), FILE).shape == (0, 3)


def test_large_label_values_are_kept():
    assert whole_numbers(np.array([2.0**40]), FILE).tolist() == [2**40]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.5], r"label value 0\.5 is not a whole number"),
        ([np.nan], "label value nan is not a whole number"),
        ([np.inf], "label value inf is not a whole number"),
        ([2.0**60], r"label value 1\.15\d*e\+18 is not a whole number"),
        ([-1], "label value -1 is negative"),
        ([-1.0], "label value -1 is negative"),
        ([1j], "label values of type complex128"),
    ],
)
def test_values_of_an_image_are_no_labels(values, message):
    with pytest.raises(InputError, match=rf"l\.nii: {message}"):
        whole_numbers(np.array(values), FILE)


def test_grids_are_compared_at_the_corners():
    shape, affine = (101, 51, 11), np.diag([1.5, 1.5, 3, 1])
    assert same_grid(shape, affine, affine)
    for changed, same in (((0, 3, 0.14), True), ((0, 3, 0.16), False), ((0, 0, 0.001), True), ((0, 0, 0.002), False)):
        row, column, change = changed  # the far corner is 100 steps away; the tolerance is a tenth of 1.5
        other = affine.copy()
        other[row, column] += change
        assert same_grid(shape, affine, other) == same_grid(shape, other, affine) == same


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flips", [(), (0,), (1, 2)])
def test_a_plane_is_picked_for_every_order_and_direction_of_axes(order, flips):
    volume = np.random.default_rng(0).integers(0, 100, (5, 4, 3))  # x, y, z
    steps, origin = np.diag([0.8, 0.5, 2.5]), np.array([-10.0, 20, 5])
    stored, directions, start = volume, steps.copy(), origin.copy()
    for axis in flips:
        stored = np.flip(stored, axis)
        start = start + directions[:, axis] * (volume.shape[axis] - 1)
        directions[:, axis] *= -1
    stored, directions = stored.transpose(order), directions[:, list(order)]
    for z in range(3):
        plane = np.stack([steps[:, 0], steps[:, 1], origin + z * steps[:, 2]], axis=1)
        np.testing.assert_array_equal(pick_plane(stored, directions, start, plane, 4, 5), volume[:, :, z].T)
        assert pick_plane(stored, directions, start, plane, 4, 6) is None  # reaches out of the volume
        between = plane + np.array([[0, 0, 0], [0, 0, 0], [0, 0, 1.0]])
        assert pick_plane(stored, directions, start, between, 4, 5) is None


def test_voxels_of_another_size_are_not_the_pixels():
    """A single pixel agrees at its corners, for any size."""
    plane = np.array([[0.8, 0, 0], [0, 0.5, 0], [0, 0, 0]])
    assert pick_plane(np.ones((1, 1, 1)), np.diag([0.8, 0.5, 2]), np.zeros(3), plane, 1, 1) == 1
    assert pick_plane(np.ones((1, 1, 1)), np.diag([1.0, 0.5, 2]), np.zeros(3), plane, 1, 1) is None


def test_parts_of_a_value_are_counted():
    labels = np.array([[1, 1, 0, 2], [0, 0, 0, 0], [1, 0, 2, 2]])
    counts = {region.value: count_parts(labels, region) for region in encode_labels(labels)}
    assert counts == {1: 2, 2: 2}
    assert [part.box for part in connected_parts(labels, 1)] == [(0, 0, 2, 1), (0, 2, 1, 3)]
    assert count_parts(np.eye(3, dtype=int), encode_labels(np.eye(3, dtype=int))[0]) == 1, "corners connect"
