"""Matterport's selection of proposals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.matcher import Matcher
from detectron2.structures import ImageList
from torch import nn

from maskrcnn_ext.modeling.matterport.boxes import InclusiveBoxTransform
from maskrcnn_ext.modeling.matterport.rpn import MatterportRPN


def transform(weights=(10.0, 10.0, 5.0, 5.0)):
    return InclusiveBoxTransform(weights=list(weights), scale_clamp=80.0)


class GivenHead(nn.Module):
    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, features):
        return self.logits, [level.new_zeros(len(level), 4, *level.shape[2:]) for level in features]


def rpn(logits, pre=100, post=100, threshold=0.7):
    return MatterportRPN(
        in_features=["p2", "p3"],
        head=GivenHead(logits),
        anchor_generator=DefaultAnchorGenerator(sizes=[[6], [12]], aspect_ratios=[1.0], strides=[4, 8], offset=0.0),
        anchor_matcher=Matcher([0.3, 0.7], [0, -1, 1]),
        box2box_transform=transform(),
        batch_size_per_image=8,
        positive_fraction=0.5,
        pre_nms_topk=[pre, pre],
        post_nms_topk=[post, post],
        nms_thresh=threshold,
    ).eval()


def propose(module, logits, window=(16, 32)):
    features = {name: torch.zeros(1, 1, *level.shape[2:]) for name, level in zip(("p2", "p3"), logits, strict=True)}
    return module(ImageList(torch.zeros(1, 3, 16, 32), [window]), features)[0][0]


def level_logits(*levels):
    return [
        torch.tensor(level, dtype=torch.float32).view(1, 1, *shape)
        for level, shape in zip(levels, [(4, 8), (2, 4)], strict=True)
    ]


def test_topk_and_nms_are_joint_over_levels():
    fine, coarse = np.linspace(-1, 1, 32), np.linspace(2, 3, 8)
    logits = level_logits(fine, coarse)
    best = propose(rpn(logits, pre=10), logits)
    # Eight of the coarse level, and two are left for the fine one.
    assert best.objectness_logits.tolist() == pytest.approx([*coarse[::-1], *fine[:-3:-1]])
    assert len(propose(rpn(logits, pre=10, post=3), logits)) == 3
    # With a low threshold the coarse boxes suppress fine ones inside them.
    strict = propose(rpn(logits, threshold=0.1), logits)
    assert 0 < len(strict) < 20


def test_proposals_are_clipped_to_the_padded_image_and_kept_however_small():
    logits = level_logits(np.full(32, -9.0), np.linspace(2, 3, 8))
    found = propose(rpn(logits, pre=8), logits, window=(10, 20))
    assert found.image_size == (16, 32)
    assert found.proposal_boxes.tensor[:, 2:].max(dim=0).values.tolist() == [30, 14]
    assert found.proposal_boxes.tensor[:, :2].min() == 0


def test_equal_probabilities_keep_the_order_of_anchors():
    # Sigmoids of 30 and 40 are both 1 in float32.
    fine, coarse = np.full(32, -9.0), np.full(8, -9.0)
    fine[[5, 20]], coarse[3] = [30, 40], 60
    found = propose(rpn(level_logits(fine, coarse), pre=3), level_logits(fine, coarse))
    assert found.objectness_logits.tolist() == [30, 40, 60]


def test_nan_gives_no_proposals_and_raises_in_training():
    logits = level_logits(np.linspace(0, 1, 32), np.full(8, np.nan))
    module = rpn(logits)
    assert propose(module, logits).objectness_logits.isfinite().all()
    module.training = True
    anchors = module.anchor_generator([torch.zeros(1, 1, 4, 8), torch.zeros(1, 1, 2, 4)])
    with pytest.raises(FloatingPointError, match="diverged"):
        module.predict_proposals(
            anchors, [x.flatten(1) for x in logits], [torch.zeros(1, 32, 4), torch.zeros(1, 8, 4)], [(16, 32)]
        )
