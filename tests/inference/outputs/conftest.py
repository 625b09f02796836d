"""An image of random pixels and three masks in it."""

import cv2
import numpy as np
import pytest

from tests.helpers.predicted_images import HEIGHT, WIDTH


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(1, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture
def masks():
    """A ring, a square under its right part, and a lone pixel in the corner."""
    masks = np.zeros((3, HEIGHT, WIDTH), np.uint8)
    cv2.circle(masks[0], (20, 20), 12, 1, -1)
    cv2.circle(masks[0], (20, 20), 6, 0, -1)
    masks[1, 10:30, 25:50] = 1
    masks[2, HEIGHT - 1, WIDTH - 1] = 1
    return masks
