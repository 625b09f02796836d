"""Fixtures that the tests of the mapper share."""

import numpy as np
import pytest
from PIL import Image

from tests.helpers.annotated_images import HEIGHT, WIDTH


@pytest.fixture(scope="module")
def image_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(path)
    return path
