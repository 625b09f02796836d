"""COCO results of the generated images, without a model."""

import json

import numpy as np
import pytest

from maskrcnn_ext.evaluation.truth import load_truth


@pytest.fixture(scope="module")
def result_files(tmp_path_factory, shapes):
    """A folder with perfect results (good.json), and with every second one of them (poor.json)."""
    folder = tmp_path_factory.mktemp("results")
    truth = load_truth(shapes)
    rng = np.random.default_rng(0)
    keys = ("image_id", "category_id", "bbox", "segmentation")
    good = [{key: own[key] for key in keys} | {"score": float(rng.random())} for own in truth.annotations]
    (folder / "good.json").write_text(json.dumps(good))
    (folder / "poor.json").write_text(json.dumps(good[::2]))
    return folder
