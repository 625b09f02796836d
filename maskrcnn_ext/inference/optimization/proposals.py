"""Detectron2's RPN as the one that picks its anchors before it decodes boxes."""

from __future__ import annotations

from detectron2.modeling.matcher import Matcher
from detectron2.modeling.proposal_generator import RPN
from torch import nn

from maskrcnn_ext.modeling.rpn import FastRPN


def fast_rpn(rpn: nn.Module) -> FastRPN | None:
    """Returns a FastRPN with the parts of a stock RPN; None for what is none."""
    if type(rpn) is FastRPN:
        return rpn
    if type(rpn) is not RPN or rpn.anchor_generator.box_dim != 4 or type(rpn.anchor_matcher) is not Matcher:
        return None
    return FastRPN(
        in_features=rpn.in_features,
        head=rpn.rpn_head,
        anchor_generator=rpn.anchor_generator,
        anchor_matcher=rpn.anchor_matcher,
        box2box_transform=rpn.box2box_transform,
        batch_size_per_image=rpn.batch_size_per_image,
        positive_fraction=rpn.positive_fraction,
        pre_nms_topk=(rpn.pre_nms_topk[True], rpn.pre_nms_topk[False]),
        post_nms_topk=(rpn.post_nms_topk[True], rpn.post_nms_topk[False]),
        nms_thresh=rpn.nms_thresh,
        min_box_size=rpn.min_box_size,
        anchor_boundary_thresh=rpn.anchor_boundary_thresh,
        loss_weight=rpn.loss_weight,
        box_reg_loss_type=rpn.box_reg_loss_type,
        smooth_l1_beta=rpn.smooth_l1_beta,
    ).eval()
