"""The folder of a run of a small model, trained on nothing, and one of its images."""

import pytest

from tests.helpers.small_model import make_run


@pytest.fixture(scope="session")
def spec(shapes):
    return f"coco:{shapes}@{shapes.parent / 'images'}"


@pytest.fixture(scope="session")
def run(tmp_path_factory, spec):
    return make_run(tmp_path_factory.mktemp("run"), spec)


@pytest.fixture(scope="session")
def photo(shapes):
    return shapes.parent / "images" / "000002.jpg"
