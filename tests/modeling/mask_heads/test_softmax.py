"""SoftmaxMaskHead: its loss and masks against a reference."""

import numpy as np
import pytest
import torch
from detectron2.utils.events import EventStorage

from tests.helpers.mask_heads import build, features, truth


@pytest.mark.parametrize("polygons", [False, True])
def test_softmax_loss_is_the_cross_entropy_of_class_and_background(polygons):
    head = build("SoftmaxMaskHead")
    head.fcn.predictor.weight.data.normal_()
    instances = truth(polygons=polygons)
    logits = head.predict(features("SoftmaxMaskHead"), [])
    with EventStorage():
        loss = head.losses(logits, instances)["loss_mask"]
    probs = logits.detach().double().softmax(1).numpy()
    classes = torch.cat([image.gt_classes for image in instances]).numpy()
    masks = torch.cat([i.gt_masks.crop_and_resize(i.proposal_boxes.tensor, 28) for i in instances]).numpy()
    expected = [
        -np.log(np.where(mask, p[label], p[3])).mean() for p, label, mask in zip(probs, classes, masks, strict=True)
    ]
    assert loss.item() == pytest.approx(np.mean(expected), rel=1e-5)
    chosen = head.probs(logits, torch.as_tensor(classes))[:, 0].detach().numpy()
    np.testing.assert_allclose(chosen, probs[np.arange(5), classes], atol=1e-5)
