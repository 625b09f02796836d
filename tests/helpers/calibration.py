"""Random weights under which every part of a detector matters, and the images for it."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


def images():
    """Two shapes for which p6's grid is rounded up: the long side limits one, the other is enlarged."""
    rng = np.random.default_rng(3)
    made = []
    for height, width in ((120, 300), (70, 64)):
        blocks = rng.integers(0, 255, (height // 10 + 1, width // 10 + 1, 3), dtype=np.uint8)
        image = blocks.repeat(10, 0).repeat(10, 1)[:height, :width]
        made.append(np.ascontiguousarray(image // 2 + rng.integers(0, 127, image.shape, dtype=np.uint8)))
    return made


@torch.no_grad()
def calibrate(model, run, *, objectness, deltas, scores, box_deltas, mask_logits=None):
    """Sets random weights: normalised activations, scores on both sides of the thresholds, masks with both values.

    Args:
        model: any detector.
        run: applies it to the images, to measure the statistics.
        objectness, deltas, scores, box_deltas, mask_logits: its last layers.
    """
    torch.manual_seed(0)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.uniform_(-0.3, 0.3)
        norm.momentum = None
    for layer, spread in ((objectness, 1.0), (deltas, 0.3), (scores, 1.5), (box_deltas, 0.5)):
        nn.init.normal_(layer.weight, std=spread / layer.weight[0].numel() ** 0.5)
        nn.init.normal_(layer.bias, std=0.1)
    nn.init.normal_(scores.bias)
    if mask_logits is not None:
        nn.init.normal_(mask_logits.weight, std=0.2)
        nn.init.constant_(mask_logits.bias, 0.2)
    model.eval()
    for norm in norms:
        norm.train()
    run(images())
    return model.eval()


def matched(boxes, classes, expected_boxes, expected_classes):
    """Returns which detection each expected one is (equal scores have no order), and the largest difference of a box."""
    assert len(boxes) == len(expected_boxes)
    distance = (boxes[:, None] - expected_boxes).abs().amax(2) + 1e4 * (classes[:, None] != expected_classes)
    order = distance.argmin(0)
    assert len(order.unique()) == len(order)
    return order, float(distance.amin(0).max())
