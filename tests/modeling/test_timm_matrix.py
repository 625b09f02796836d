"""The matrix on networks of timm: every mask head and every pooler trains and predicts on each family."""

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.modeling import GeneralizedRCNN

from tests.helpers.pairs import pairs
from tests.helpers.timm_models import NETS, detector
from tests.modeling.test_matrix import (
    HEADS,
    PYRAMID,
    ROI_POOLERS,
    exercise,
    head_overrides,
    pooler_overrides,
    small,
)

pytest.importorskip("timm")
CONFIG = "mask_rcnn_r18_fpn_scratch"


@pytest.mark.parametrize(("family", "part"), pairs(list(NETS), [*HEADS, *ROI_POOLERS], every=2 * len(NETS)))
def test_every_part_on_each_family(family, part):
    is_head = part in HEADS
    head, node = (part, "mask_head") if is_head else ("FCNMaskHead", "mask_pooler")
    overrides = head_overrides(head, CONFIG) + ([] if is_head else pooler_overrides(part, node))
    cfg = LazyConfig.apply_overrides(small(CONFIG), overrides).model
    assert (cfg.roi_heads.mask_pooler is None) == (part in PYRAMID)
    torch.manual_seed(1)
    model = GeneralizedRCNN(
        backbone=detector(family).backbone,
        proposal_generator=instantiate(cfg.proposal_generator),
        roi_heads=instantiate(cfg.roi_heads),
        pixel_mean=[128.0] * 3,
        pixel_std=[64.0] * 3,
    )
    exercise(model, head, of=node)
