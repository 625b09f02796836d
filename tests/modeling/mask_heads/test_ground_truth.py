"""Scalars and pictures of the training masks."""

import pytest
import torch
from detectron2.utils.events import EventStorage

from maskrcnn_ext.modeling.mask_heads.ground_truth import log_accuracy
from tests.helpers.mask_heads import build, features, truth


@pytest.mark.parametrize(
    "name", ["FCNMaskHead", "SoftmaxMaskHead", "DCTMaskHead", "PatchDCTMaskHead", "RefineMaskHead"]
)
def test_pictures_of_the_training_masks(name):
    head = build(name, vis_period=2)
    with EventStorage(start_iter=4) as storage:
        head(features(name), truth())
        assert len(storage._vis_data) == 5
    with EventStorage(start_iter=5) as storage:
        head(features(name), truth())
        assert not storage._vis_data


def test_accuracy_counts_false_positives_and_negatives_like_the_stock_loss():
    targets = torch.zeros(1, 4, 4, dtype=torch.bool)
    targets[0, :2] = True
    predicted = targets.clone()
    predicted[0, 0, :2] = False  # 2 of 8 missed
    predicted[0, 3, 0] = True  # 1 of 8 too many
    with EventStorage() as storage:
        log_accuracy(predicted, targets)
    latest = {name: value for name, (value, _) in storage.latest().items()}
    assert latest == {
        "mask_rcnn/accuracy": pytest.approx(13 / 16),
        "mask_rcnn/false_positive": pytest.approx(1 / 8),
        "mask_rcnn/false_negative": pytest.approx(2 / 8),
    }
