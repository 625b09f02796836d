"""The stock RoI pooler as the one that takes all levels in one call."""

from __future__ import annotations

from detectron2.layers import ROIAlign
from detectron2.modeling.poolers import ROIPooler
from torch import nn

from maskrcnn_ext.modeling.poolers.fast import FastROIPooler


def fast_pooler(module: nn.Module) -> FastROIPooler | None:
    """Returns a FastROIPooler with the results of a stock pooler, or None for what is none, or pools by something else than RoIAlign."""
    if type(module) is not ROIPooler or not all(type(level) is ROIAlign for level in module.level_poolers):
        return None
    levels = list(module.level_poolers)
    return FastROIPooler(
        module.output_size,
        [level.spatial_scale for level in levels],
        levels[0].sampling_ratio,
        "ROIAlignV2" if levels[0].aligned else "ROIAlign",
        module.canonical_box_size,
        module.canonical_level,
    )
