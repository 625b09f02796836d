"""Clean datasets that a test may change."""

import pytest

from tests.helpers.planted import set_of_polygons, set_of_rles


@pytest.fixture
def rles(shapes, tmp_path):
    return set_of_rles(shapes, tmp_path)


@pytest.fixture
def polygons(shapes, tmp_path):
    return set_of_polygons(shapes, tmp_path)
