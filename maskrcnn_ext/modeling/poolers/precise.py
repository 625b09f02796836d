"""Precise RoI pooling (PrRoIPool), arXiv:1807.11590."""

from __future__ import annotations

from functools import partial

from maskrcnn_ext.modeling.poolers.base import BasePooler, LevelOperation
from maskrcnn_ext.ops.precise_roi_pool import precise_roi_pool


class PreciseROIPooler(BasePooler):
    """Averages the interpolated feature map over each bin exactly; the boxes receive gradients, too (section 3.2).

    ``sampling_ratio`` has no effect, as an integral takes no samples. See :class:`.base.BasePooler` for the arguments.

    Example::

        model.roi_heads.mask_pooler._target_=maskrcnn_ext.PreciseROIPooler
    """

    def level_operation(self) -> LevelOperation:
        return partial(precise_roi_pool, output_size=self.output_size, aligned=self.aligned)
