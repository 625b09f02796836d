"""RoIWarp (arXiv:1512.04412), the rival that RoIAlign was measured against (arXiv:1703.06870, table 2c)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from detectron2.modeling.poolers import ROIPooler
from torch import Tensor, nn

from maskrcnn_ext.modeling.poolers.arguments import ALIGNED, as_pair_of_levels, require_one_of
from maskrcnn_ext.ops.roi_warp import roi_warp


class ROIWarpPooler(ROIPooler):
    """Rounds a box to the feature grid as RoIPool does, then resamples it bilinearly as RoIAlign does.

    The arguments are those of Detectron2's ROIPooler and one more; ``forward`` takes feature maps (N, C, H, W), one a level, and
    N ``Boxes``, and returns (M, C, h, w) with M boxes of all images.

    Args:
        output_size: bins along the height and the width, one number, or a pair where there is one level.
        scales: 1 / stride of every level.
        sampling_ratio: samples per bin and axis. 0 takes as many as a bin has pixels, rounded up, for the average, and 2 for the
            maximum.
        pooler_type: "ROIAlignV2" puts the centre of the first pixel at 0.5, so that the samples lie within the pixels that RoIPool
            would pool; "ROIAlign" puts it at 0.
        canonical_box_size: square root of a box's area, in pixels, that belongs to ``canonical_level``.
        canonical_level: log2 of that level's stride.
        aggregate: "average" or "max" of a bin's samples.

    Raises:
        InputError: for another ``pooler_type`` or ``aggregate``.
    """

    def __init__(
        self,
        output_size: int | Sequence[int],
        scales: Sequence[float],
        sampling_ratio: int,
        pooler_type: str,
        canonical_box_size: int = 224,
        canonical_level: int = 4,
        *,
        aggregate: Literal["average", "max"] = "average",
    ) -> None:
        require_one_of(self, "pooler_type", pooler_type, tuple(ALIGNED))
        require_one_of(self, "aggregate", aggregate, ("average", "max"))
        size = as_pair_of_levels(self, output_size, scales)
        super().__init__(size, list(scales), sampling_ratio, pooler_type, canonical_box_size, canonical_level)
        self.level_poolers = nn.ModuleList(
            _WarpLevel(size, scale, sampling_ratio, ALIGNED[pooler_type], aggregate) for scale in scales
        )


class _WarpLevel(nn.Module):
    def __init__(
        self,
        output_size: tuple[int, int],
        scale: float,
        sampling_ratio: int,
        aligned: bool,
        aggregate: Literal["average", "max"],
    ) -> None:
        super().__init__()
        self.output_size = output_size
        self.scale = scale
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned
        self.aggregate: Literal["average", "max"] = aggregate

    def forward(self, features: Tensor, rois: Tensor) -> Tensor:
        return roi_warp(
            features,
            rois,
            self.output_size,
            self.scale,
            sampling_ratio=self.sampling_ratio,
            aligned=self.aligned,
            aggregate=self.aggregate,
        )
