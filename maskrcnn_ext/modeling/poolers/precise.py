"""Precise RoI pooling (PrRoIPool), arXiv:1807.11590."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.modeling.poolers import ROIPooler
from torch import Tensor, nn

from maskrcnn_ext.modeling.poolers.arguments import ALIGNED, as_pair_of_levels, require_one_of
from maskrcnn_ext.ops.precise_roi_pool import precise_roi_pool


class PreciseROIPooler(ROIPooler):
    """Averages the interpolated feature map over every bin exactly; gradients reach the boxes, too (section 3.2).

    The arguments are those of Detectron2's ROIPooler; ``forward`` takes feature maps (N, C, H, W), one a level, and N ``Boxes``, and
    returns (M, C, h, w) with M boxes of all images.

    Args:
        output_size: bins along the height and the width, one number, or a pair where there is one level.
        scales: 1 / stride of every level.
        sampling_ratio: without effect; an integral takes no samples.
        pooler_type: "ROIAlignV2" puts the centre of the first pixel at 0.5, "ROIAlign" at 0.
        canonical_box_size: square root of a box's area, in pixels, that belongs to ``canonical_level``.
        canonical_level: log2 of that level's stride.

    Raises:
        InputError: for another ``pooler_type``, or no square and several levels.
    """

    def __init__(
        self,
        output_size: int | Sequence[int],
        scales: Sequence[float],
        sampling_ratio: int,
        pooler_type: str,
        canonical_box_size: int = 224,
        canonical_level: int = 4,
    ) -> None:
        require_one_of(self, "pooler_type", pooler_type, tuple(ALIGNED))
        size = as_pair_of_levels(self, output_size, scales)
        super().__init__(size, list(scales), sampling_ratio, pooler_type, canonical_box_size, canonical_level)
        self.level_poolers = nn.ModuleList(_PreciseLevel(size, scale, ALIGNED[pooler_type]) for scale in scales)


class _PreciseLevel(nn.Module):
    def __init__(self, output_size: tuple[int, int], scale: float, aligned: bool) -> None:
        super().__init__()
        self.output_size = output_size
        self.scale = scale
        self.aligned = aligned

    def forward(self, features: Tensor, rois: Tensor) -> Tensor:
        return precise_roi_pool(features, rois, self.output_size, self.scale, aligned=self.aligned)
