"""Turns a ResNet-50 FPN model into one that trains from random weights on a CPU: ResNet-18, 128 channels, live BatchNorm."""

from detectron2.config import LazyCall as L
from detectron2.modeling import ResNet


def to_r18_from_scratch(model):
    """Changes a feature-pyramid model in place and returns it.

    Random weights under a frozen BatchNorm diverge, so that it is live (norm "BN") and nothing is frozen (`freeze_at` 0). The means
    and deviations are ImageNet's, because there are no weights that have absorbed them.
    """
    bottom_up = model.backbone.bottom_up
    bottom_up.stem.norm = "BN"
    bottom_up.stages = L(ResNet.make_default_stages)(depth=18, norm="BN")
    bottom_up.freeze_at = 0
    model.backbone.update(norm="BN", out_channels=128)
    model.pixel_std = [57.375, 57.12, 58.395]

    heads = model.roi_heads
    # Few RoIs, because they take most of the time on a CPU.
    heads.batch_size_per_image = 128
    model.proposal_generator.update(pre_nms_topk=[1000, 500], post_nms_topk=[500, 300])
    for box_head in heads.box_heads if "box_heads" in heads else [heads.box_head]:
        box_head.fc_dims = [512, 512]
    for predictor in heads.box_predictors if "box_predictors" in heads else [heads.box_predictor]:
        predictor.input_shape.channels = 512
    if "mask_head" in heads:
        heads.mask_head.update(conv_dims=[128, 128, 128, 128, 128], conv_norm="BN")
    if "keypoint_head" in heads:
        heads.keypoint_head.conv_dims = [128] * 4
    return model
