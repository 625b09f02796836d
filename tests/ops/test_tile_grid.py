"""Tiles: they cover the image, share what they should, and own every pixel once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.tile_grid import TileGrid


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(20, 120), st.floats(0.4, 0.8))
def test_cores_tile_the_image_and_lie_in_their_windows(width, height, tile, overlap):
    grid = TileGrid(width, height, tile, overlap)
    owners = np.zeros((height, width), int)
    for (x, y, w, h), (left, top, inner_width, inner_height) in zip(grid.windows, grid.cores, strict=True):
        assert (w, h) == (min(tile, width), min(tile, height))
        assert 0 <= x <= left
        assert 0 <= y <= top
        assert left + inner_width <= x + w <= width
        assert top + inner_height <= y + h <= height
        owners[top : top + inner_height, left : left + inner_width] += 1
    assert (owners == 1).all()
    for starts in ({x for x, *_ in grid.windows}, {y for _, y, *_ in grid.windows}):
        assert all(step <= tile - round(tile * overlap) for step in np.diff(sorted(starts)))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 200), st.integers(1, 200), st.integers(20, 80), st.floats(0.4, 0.8))
def test_pairs_are_all_tiles_that_share_pixels(width, height, tile, overlap):
    grid = TileGrid(width, height, tile, overlap)
    shown = [np.zeros((height, width), bool) for _ in grid.windows]
    for mask, (x, y, w, h) in zip(shown, grid.windows, strict=True):
        mask[y : y + h, x : x + w] = True
    expected = {(i, j): (shown[i] & shown[j]).sum() for j in range(len(shown)) for i in range(j)}
    found = {(i, j): w * h for i, j, (_, _, w, h) in grid.pairs()}
    assert found == {pair: pixels for pair, pixels in expected.items() if pixels}


def test_golden_tiles():
    grid = TileGrid(1000, 100, 400, 0.1)
    assert grid.windows == [(0, 0, 400, 100), (300, 0, 400, 100), (600, 0, 400, 100)]
    assert grid.cores == [(0, 0, 350, 100), (350, 0, 300, 100), (650, 0, 350, 100)]
    assert grid.meeting((390, 5, 610, 9)) == [0, 1, 2]
    assert grid.meeting((400, 5, 600, 9)) == [1]


def test_clearance_ignores_sides_on_the_image_border():
    grid = TileGrid(1000, 100, 400, 0.1)
    assert grid.clearance(0, (0, 0, 390, 100)) == 10
    assert grid.clearance(1, (305, 0, 350, 100)) == 5
    assert grid.clearance(2, (590, 0, 1000, 100)) == -10
    assert TileGrid(300, 100, 400, 0.1).clearance(0, (0, 0, 300, 100)) == float("inf")


@pytest.mark.parametrize(
    ("tile", "overlap", "message"),
    [(1024, 0, "overlap=0"), (1024, 1, "overlap=1"), (1024, float("nan"), "overlap=nan"), (20, 0.2, "share 4 pixels")],
)
def test_invalid_tiles_are_errors(tile, overlap, message):
    with pytest.raises(InputError, match=message):
        TileGrid(2000, 2000, tile, overlap)
