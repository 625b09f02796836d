"""PointRendMaskHead: its coarse mask and the start of the subdivision."""

import pytest
import torch

from maskrcnn_ext.modeling.mask_heads.point_rend import PointRendMaskHead
from tests.helpers.point_heads import batch, build, pair, pyramid, step, with_contrast


@pytest.mark.parametrize(("num_classes", "levels"), [(1, ["p2"]), (3, ["p2"]), (3, ["p2", "p3"])])
def test_coarse_logits_equal_detectron2s(num_classes, levels):
    ours, theirs = pair(PointRendMaskHead, num_classes, levels=levels)
    boxes = [image.proposal_boxes for image in batch()]
    expected = theirs.coarse_head(theirs._roi_pooler(pyramid(), boxes))
    torch.testing.assert_close(ours.predict(pyramid(), boxes).coarse, expected, atol=1e-5, rtol=0)


def test_other_coarse_losses_can_be_chosen():
    head = build(PointRendMaskHead)
    plain, _ = step(head, pyramid(), batch())
    head.mask_loss = build(PointRendMaskHead, mask_loss="bce+dice").mask_loss
    more, _ = step(head, pyramid(), batch())
    assert more["loss_mask"] > plain["loss_mask"]
    assert more["loss_mask_point"] == plain["loss_mask_point"]


def test_subdivision_starts_at_the_first_useful_step():
    head = with_contrast(build(PointRendMaskHead, subdivision_steps=1, coarse_size=6)).eval()
    found = head(pyramid(), batch(training=False))
    assert found[0].pred_masks.shape[-1] == 12
    assert (head.start_size, head.subdivision_steps) == (12, 0)
