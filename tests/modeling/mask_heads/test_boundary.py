"""BoundaryMaskHead: layers and losses against a reference in NumPy, both kinds of input, and the finest level for the boundary."""

import numpy as np
import pytest
import torch
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch.nn import functional as F

from tests.helpers.mask_heads import build, detections, features, truth


def reference_logits(head, pyramid, boxes):
    """Mask and boundary logits of BMask R-CNN (its figure 3) in float64, from the parameters of a head alone."""
    weights = {name: value.double() for name, value in head.state_dict().items()}

    def conv(x, name, *, stride=1, padding=1, relu=True):
        y = F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], stride=stride, padding=padding)
        return y.relu() if relu else y

    def predict(x, name):
        x = F.conv_transpose2d(x, weights[f"{name}.0.0.weight"], weights[f"{name}.0.0.bias"], stride=2).relu()
        return conv(x, f"{name}.1", padding=0, relu=False)

    mask = ROIPooler(14, [1 / 4, 1 / 8, 1 / 16, 1 / 32], 0, "ROIAlignV2")(list(pyramid.values()), boxes).double()
    boundary = ROIPooler(28, [1 / 4], 0, "ROIAlignV2")([pyramid["p2"]], boxes).double()
    mask = conv(mask, "mask_fcn.0")
    boundary = conv(boundary, "downsample", stride=2) + conv(mask, "mask_to_boundary", padding=0)
    for layer in range(2):
        boundary = conv(boundary, f"boundary_fcn.{layer}")
    mask = conv(mask + conv(boundary, "boundary_to_mask", padding=0), "mask_fusion")
    return predict(mask, "mask_predictor"), predict(boundary, "boundary_predictor")


@pytest.mark.parametrize("squared", [True, False])
def test_layers_and_losses_equal_the_reference(squared):
    head, pyramid, instances = build("BoundaryMaskHead", squared_dice=squared), features("PointRendMaskHead"), truth()
    for layer in (head.mask_predictor[1], head.boundary_predictor[1]):
        torch.nn.init.normal_(layer.weight)
    boxes = [image.proposal_boxes for image in instances]
    with EventStorage(), torch.no_grad():
        losses = head(pyramid, instances)
        logits = head.predict(pyramid, boxes)
    expected = reference_logits(head, pyramid, boxes)
    for found, reference in zip(logits, expected, strict=True):
        torch.testing.assert_close(found.double(), reference, rtol=1e-4, atol=1e-4)

    classes = torch.cat([image.gt_classes for image in instances]).numpy()
    masks = torch.cat([i.gt_masks.crop_and_resize(i.proposal_boxes.tensor, 28) for i in instances]).numpy()
    # The Laplacian's positive response: pixels of the mask with one of their eight neighbours outside of it, or of the grid.
    padded = np.pad(masks, ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    boundaries = masks & ~windows.all(axis=(-1, -2))
    probs = [1 / (1 + np.exp(-x.numpy()[np.arange(5), classes])) for x in expected]
    entropies = [-np.where(y, np.log(p), np.log(1 - p)).mean() for p, y in zip(probs, (masks, boundaries), strict=True)]
    overlap = (probs[1] * boundaries).sum((1, 2))
    total = (probs[1] ** (2 if squared else 1)).sum((1, 2)) + boundaries.sum((1, 2))
    dice = (1 - (2 * overlap + 1) / (total + 1)).mean()
    assert losses["loss_mask"].item() == pytest.approx(entropies[0], rel=1e-4)
    assert losses["loss_mask_boundary"].item() == pytest.approx(entropies[1] + dice, rel=1e-4)


def test_boundary_head_takes_pyramid_and_pooled_features_with_the_same_weights():
    head = build("BoundaryMaskHead").eval()
    pyramid = features("PointRendMaskHead")
    with torch.no_grad():
        of_pyramid = head(pyramid, detections())
        of_tensor = head(features("BoundaryMaskHead"), detections())
    assert of_pyramid[0].pred_masks.shape == of_tensor[0].pred_masks.shape == (3, 1, 28, 28)


def test_boundary_branch_uses_the_finest_level():
    """A change in p2 alone reaches the mask of a large box, whose mask features come from a coarser level."""
    head = build("BoundaryMaskHead").eval()
    image = Instances((512, 512), pred_boxes=Boxes(torch.tensor([[0.0, 0.0, 500.0, 500.0]])))
    image.pred_classes, image.scores = torch.tensor([0]), torch.tensor([1.0])
    torch.manual_seed(0)
    pyramid = {f"p{level}": torch.rand(1, 16, 512 // 2**level, 512 // 2**level) for level in range(2, 6)}
    with torch.no_grad():
        before = head.predict(pyramid, [image.pred_boxes])
        after = head.predict({**pyramid, "p2": pyramid["p2"] + 1}, [image.pred_boxes])
    assert not torch.allclose(before[0], after[0])
    assert not torch.allclose(before[1], after[1])
