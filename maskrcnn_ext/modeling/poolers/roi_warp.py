"""RoIWarp (arXiv:1512.04412), to which Mask R-CNN compares RoIAlign (arXiv:1703.06870, table 2c)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

from maskrcnn_ext.modeling.poolers.base import BasePooler, LevelOperation, require_one_of
from maskrcnn_ext.ops.roi_warp import roi_warp


class ROIWarpPooler(BasePooler):
    """Rounds a box to the feature grid as RoIPool does, then resamples it bilinearly as RoIAlign does.

    With "ROIAlignV2" the samples are within the pixels that RoIPool would pool. See :class:`.base.BasePooler` for the shared arguments.

    Args:
        sampling_ratio: samples per bin and axis. 0 takes as many as a bin has pixels, rounded up, for the average, and 2 for the
            maximum.
        aggregate: "average" or "max" of a bin's samples.

    Raises:
        InputError: an unknown ``pooler_type`` or ``aggregate``.

    Example::

        model.roi_heads.mask_pooler._target_=maskrcnn_ext.ROIWarpPooler model.roi_heads.mask_pooler.aggregate=max
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
        require_one_of(self, "aggregate", aggregate, ("average", "max"))
        self.aggregate: Literal["average", "max"] = aggregate  # before the base class builds the levels
        super().__init__(output_size, scales, sampling_ratio, pooler_type, canonical_box_size, canonical_level)

    def level_operation(self) -> LevelOperation:
        return partial(
            roi_warp,
            output_size=self.output_size,
            sampling_ratio=self.sampling_ratio,
            aligned=self.aligned,
            aggregate=self.aggregate,
        )
