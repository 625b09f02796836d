"""BoundaryMaskHead: both kinds of input, and the finest level for the boundary."""

import torch
from detectron2.structures import Boxes, Instances

from tests.helpers.mask_heads import build, detections, features


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
