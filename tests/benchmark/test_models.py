"""Random weights of the benchmarks behave like trained ones."""

import numpy as np
import torch

from maskrcnn_ext.benchmark import models
from tests.benchmark.conftest import SIZE, SMALL


def test_the_image_is_smooth_and_reproducible():
    image = models.photograph(120, 80, seed=3)
    assert image.shape == (120, 80, 3)
    assert (image == models.photograph(120, 80, seed=3)).all()
    assert (image != models.photograph(120, 80, seed=4)).any()
    values = image.astype(float)
    assert 30 < values.std() < 60
    assert np.abs(np.diff(values, axis=0)).mean() < 0.2 * values.std()


def test_random_weights_detect_as_many_as_trained_ones(weights):
    model = models.detectron2_model(SMALL, weights, [models.NO_RESIZE], device="cpu")
    image = models.to_tensor(models.photograph(*SIZE))
    with torch.inference_mode():
        features = model.backbone(model.preprocess_image([{"image": image}]).tensor)
        (found,) = model([{"image": image}])
    assert all(0.05 < level.std() < 20 for level in features.values())
    instances = found["instances"]
    assert len(instances) == 100
    assert len(set(instances.pred_classes.tolist())) > 5
    filled = instances.pred_masks.flatten(1).sum(1) / instances.pred_boxes.area()
    assert 0.2 < filled.median() < 0.9
