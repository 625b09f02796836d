"""Fixtures that the tests of images share."""

import pytest
from PIL import Image


@pytest.fixture
def save(tmp_path):
    def save(image, name, **options):
        path = tmp_path / name
        (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
        return path

    return save
