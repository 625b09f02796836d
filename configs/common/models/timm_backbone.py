"""Puts a network of timm, with its pretrained weights, into a ResNet-FPN model."""

from detectron2.config import LazyCall as L

from maskrcnn_ext import TimmBackbone


def to_timm(model, name, **options):
    """Changes a feature-pyramid model in place and returns it.

    Args:
        model: with ``backbone.bottom_up``. Images stay as they are: the backbone converts them to the normalisation of its pre-training.
        name: timm's name, with the tag of the weights.
        options: of ``maskrcnn_ext.TimmBackbone``.
    """
    model.backbone.bottom_up = L(TimmBackbone)(
        name=name,
        out_features=["res2", "res3", "res4", "res5"],
        pixel_mean="${...pixel_mean}",
        pixel_std="${...pixel_std}",
        input_format="${...input_format}",
        **{"pretrained": True, **options},
    )
    return model


def to_slim(model, channels=128):
    """Gives neck and heads fewer channels in place, for networks of a few million parameters; returns the model."""
    model.backbone.out_channels = channels
    heads = model.roi_heads
    heads.box_head.fc_dims = [4 * channels] * 2
    heads.box_predictor.input_shape.channels = 4 * channels
    heads.mask_head.conv_dims = [channels] * 5
    return model
