"""Random boxes and scores around an image, for the tests of the selection of proposals and detections."""

from __future__ import annotations

import torch

SIZE = (60, 80)
NUM_IMAGES = 2
NUM_CLASSES = 3


def random_boxes(*shape):
    """Boxes around an image of `SIZE`: some lie across its border, some outside."""
    centres = torch.rand(*shape, 2) * 100 - 10
    sides = torch.rand(*shape, 2) * 40
    return torch.cat([centres - sides / 2, centres + sides / 2], dim=-1)


def levels():
    """Returns boxes and logits of three levels, by descending logit, with values that are not finite."""
    torch.manual_seed(0)
    found = []
    for count in (50, 20, 5):
        boxes, logits = random_boxes(NUM_IMAGES, count), torch.randn(NUM_IMAGES, count).sort(descending=True).values
        boxes[0, 1], boxes[1, 2, 3], logits[1, -1] = torch.nan, torch.inf, -torch.inf
        found.append((boxes, logits))
    return found


def classified():
    """Returns boxes (R, K * 4) and probabilities (R, K + 1) of 40 proposals, one with a box and one with a probability of NaN."""
    torch.manual_seed(1)
    boxes, probs = random_boxes(40, NUM_CLASSES).flatten(1), torch.randn(40, NUM_CLASSES + 1).softmax(dim=1)
    boxes[3, 0], probs[30, 1] = torch.nan, torch.nan
    return boxes, probs
