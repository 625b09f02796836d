"""RoIAlign for heads that pool by themselves."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes
from torch import Tensor


def roi_align(features: dict[str, Tensor], strides: Sequence[int], boxes: list[Boxes], size: int) -> Tensor:
    """Pools each box from the level that its area calls for, as the stock mask pooler does.

    Args:
        features: maps (N, C, H_l, W_l), finest first.
        strides: their strides in pixels of the input image.
        boxes: one Boxes an image, in pixels of the input image.
        size: side of the output.

    Returns:
        (R, C, size, size)
    """
    # The pooler has no parameters: building it costs less than keeping one for every size.
    pooler = ROIPooler(size, [1 / stride for stride in strides], sampling_ratio=0, pooler_type="ROIAlignV2")
    pooled: Tensor = pooler(list(features.values()), boxes)
    return pooled


def roi_align_finest(features: dict[str, Tensor], strides: Sequence[int], boxes: list[Boxes], size: int) -> Tensor:
    """As :func:`roi_align`, every box from the finest level."""
    name = next(iter(features))
    return roi_align({name: features[name]}, strides[:1], boxes, size)
