"""Fixtures that the tests of the mapper share."""

import numpy as np
import pytest
from PIL import Image

from maskrcnn_ext.data.mapping import image_cache
from tests.helpers.annotated_images import HEIGHT, WIDTH


@pytest.fixture(scope="module")
def image_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def own_image_caches(tmp_path, monkeypatch):
    """Keeps the caches of the tests away from those of the user."""
    monkeypatch.setenv("MASKRCNN_EXT_CACHE", str(tmp_path / "disk"))
    (tmp_path / "memory").mkdir()
    monkeypatch.setattr(image_cache, "_MEMORY", tmp_path / "memory")
