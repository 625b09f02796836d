"""An image of random pixels and three masks in it, and the folder of a job."""

import json

import cv2
import numpy as np
import pytest

from maskrcnn_ext.ops.rle import encode_mask
from tests.helpers.predicted_images import HEIGHT, JOB_MASK, WIDTH


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


@pytest.fixture
def job(tmp_path):
    """The folder of a job on two images; the second is in a folder below."""
    files = [tmp_path / "images/a.png", tmp_path / "images/sub/b.png"]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), np.zeros((40, 60, 3), np.uint8))
    images = [{"id": i, "file_name": str(file), "height": 40, "width": 60} for i, file in enumerate(files, start=1)]
    categories = [{"id": 7, "name": "leaf"}, {"id": 3, "name": "stem"}]
    common = {"category_id": 3, "image_id": 1}
    results = [
        {**common, "bbox": [9, 5, 21, 10], "score": 0.75, "segmentation": encode_mask(JOB_MASK)},
        {**common, "bbox": [9, 5, 21, 10], "score": 0.25, "segmentation": encode_mask(JOB_MASK)},
        {**common, "bbox": [1, 2, 3, 4], "score": 0.5, "segmentation": encode_mask(np.zeros((40, 60)))},
    ]
    (tmp_path / "predictions.json").write_text(json.dumps(results))
    (tmp_path / "images.json").write_text(json.dumps({"images": images, "categories": categories}))
    return tmp_path
