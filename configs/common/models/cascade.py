"""Turns Mask R-CNN into Cascade Mask R-CNN (arXiv:1906.09756): three box stages at rising IoU."""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.roi_heads import CascadeROIHeads, FastRCNNConvFCHead, FastRCNNOutputLayers

# Each stage regresses more finely than the previous one: its weights grow with its IoU.
_STAGES = [(0.5, [10.0, 10.0, 5.0, 5.0]), (0.6, [20.0, 20.0, 10.0, 10.0]), (0.7, [30.0, 30.0, 15.0, 15.0])]


def to_cascade(model):
    """Changes a Mask R-CNN on a feature pyramid in place and returns it. Each stage has the layers of the model's box head."""
    heads = model.roi_heads
    layers = {key: heads.box_head[key] for key in ("conv_dims", "fc_dims", "conv_norm") if key in heads.box_head}
    del heads["box_head"], heads["box_predictor"], heads["proposal_matcher"]
    heads.update(
        _target_=CascadeROIHeads,
        box_heads=[
            L(FastRCNNConvFCHead)(
                input_shape=L(ShapeSpec)(channels="${.....backbone.out_channels}", height=7, width=7), **layers
            )
            for _ in _STAGES
        ],
        box_predictors=[
            L(FastRCNNOutputLayers)(
                input_shape=L(ShapeSpec)(channels=1024),
                test_score_thresh=0.05,
                box2box_transform=L(Box2BoxTransform)(weights=weights),
                cls_agnostic_bbox_reg=True,
                num_classes="${...num_classes}",
            )
            for _, weights in _STAGES
        ],
        proposal_matchers=[
            L(Matcher)(thresholds=[iou], labels=[0, 1], allow_low_quality_matches=False) for iou, _ in _STAGES
        ],
    )
    return model


def to_giou_cascade(model):
    """Changes Mask R-CNN in place into the Cascade Mask R-CNN of Swin and ConvNeXt (arXiv:2103.14030), and returns it.

    Each stage has four convolutions and one fully connected layer. Boxes are trained by generalised IoU.
    """
    # The heads may get no RoIs, which torch's SyncBatchNorm refuses and Detectron2's "N" variant supports.
    model.roi_heads.box_head.update(conv_dims=[256, 256, 256, 256], fc_dims=[1024], conv_norm="naiveSyncBN_N")
    to_cascade(model)
    for predictor in model.roi_heads.box_predictors:
        predictor.update(box_reg_loss_type="giou", loss_weight={"loss_box_reg": 10.0})
    return model
