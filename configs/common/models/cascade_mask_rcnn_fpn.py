"""Cascade Mask R-CNN (arXiv:1906.09756): three box stages at rising IoU.

Hyper-parameters of Detectron2's Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml.
"""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.roi_heads import CascadeROIHeads, FastRCNNConvFCHead, FastRCNNOutputLayers

from .mask_rcnn_fpn import model

# Each stage regresses more finely than the previous one: its weights grow with its IoU.
_STAGES = [(0.5, [10.0, 10.0, 5.0, 5.0]), (0.6, [20.0, 20.0, 10.0, 10.0]), (0.7, [30.0, 30.0, 15.0, 15.0])]

del model.roi_heads["box_head"], model.roi_heads["box_predictor"], model.roi_heads["proposal_matcher"]
model.roi_heads.update(
    _target_=CascadeROIHeads,
    box_heads=[
        L(FastRCNNConvFCHead)(
            input_shape=L(ShapeSpec)(channels="${.....backbone.out_channels}", height=7, width=7),
            conv_dims=[],
            fc_dims=[1024, 1024],
        )
        for _ in _STAGES
    ],
    box_predictors=[
        L(FastRCNNOutputLayers)(
            input_shape=L(ShapeSpec)(channels=1024),
            test_score_thresh=0.05,
            box2box_transform=L(Box2BoxTransform)(weights=_weights),
            cls_agnostic_bbox_reg=True,
            num_classes="${...num_classes}",
        )
        for _, _weights in _STAGES
    ],
    proposal_matchers=[
        L(Matcher)(thresholds=[_iou], labels=[0, 1], allow_low_quality_matches=False) for _iou, _ in _STAGES
    ],
)
model.proposal_generator.post_nms_topk = [2000, 1000]
