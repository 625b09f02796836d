"""PointRendMaskHead: its coarse mask and the start of the subdivision."""

import pytest
import torch

from maskrcnn_ext.modeling.mask_heads.point_rend import PointRendMaskHead
from tests.helpers.point_heads import batch, build, detectron2_head, pair, pyramid, step, with_contrast


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


def test_without_points_the_loss_is_detectron2s_and_the_coarse_mask_the_result():
    """Detectron2's POINT_HEAD_ON = False, which it can train but not predict with."""
    ours, theirs = build(PointRendMaskHead, refine_points=False), detectron2_head(PointRendMaskHead, num_classes=3)
    theirs.mask_point_on = False
    del theirs.point_head
    with_contrast(ours)
    theirs.load_state_dict(ours.state_dict())
    losses, _ = step(ours, pyramid(), batch())
    expected, _ = step(theirs, pyramid(), batch())
    assert losses.keys() == {"loss_mask"}
    torch.testing.assert_close(losses, expected)
    instances = batch(training=False)
    boxes = [image.pred_boxes for image in instances]
    coarse = theirs.coarse_head(theirs._roi_pooler(pyramid(), boxes))
    classes = torch.cat([image.pred_classes for image in instances])
    found = torch.cat([image.pred_masks for image in ours.eval()(pyramid(), instances)])
    torch.testing.assert_close(found[:, 0], coarse[range(5), classes].sigmoid(), atol=1e-6, rtol=0)
