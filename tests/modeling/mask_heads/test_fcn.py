"""FCNMaskHead equals Detectron2's mask head."""

import pytest
import torch
from detectron2.modeling.roi_heads import MaskRCNNConvUpsampleHead
from detectron2.utils.events import EventStorage

from tests.helpers.mask_heads import SHAPE, build, detections, features, truth


@pytest.mark.parametrize("num_classes", [3, 1])
def test_fcn_is_the_stock_head(num_classes):
    ours = build("FCNMaskHead", num_classes=num_classes)
    stock = MaskRCNNConvUpsampleHead(SHAPE, num_classes=num_classes, conv_dims=[16, 16])
    stock.load_state_dict(ours.state_dict())
    x = features("FCNMaskHead")
    with EventStorage() as one, EventStorage() as other:
        with one:
            found = ours(x, truth())
        with other:
            expected = stock(x, truth())
    assert found.keys() == expected.keys()
    torch.testing.assert_close(found["loss_mask"], expected["loss_mask"])
    assert {k: pytest.approx(v[0]) for k, v in one.latest().items()} == {k: v[0] for k, v in other.latest().items()}
    ours.eval(), stock.eval()
    for a, b in zip(ours(x, detections()), stock(x, detections()), strict=True):
        assert torch.equal(a.pred_masks, b.pred_masks)
