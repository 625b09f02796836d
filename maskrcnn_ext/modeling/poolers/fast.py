"""Detectron2's ROIPooler, computed in one call for all levels."""

from __future__ import annotations

import torch
from detectron2.modeling.poolers import assign_boxes_to_levels
from detectron2.structures import Boxes
from torch import Tensor

from maskrcnn_ext.modeling.poolers.base import BasePooler
from maskrcnn_ext.ops.roi_align import roi_align


class FastROIPooler(BasePooler):
    """The stock RoIAlign of FPN, result for result, many times as fast on a CPU and without synchronising with a GPU.

    It differs where the stock pooler fails or loses precision. A box with a NaN corner, or one 2**24 pixels or more from the origin,
    pools to zeros. Boxes stay float32 where features are float16 or bfloat16. The result is channels_last where the
    features are, and ``output_size`` need not be square.

    See :class:`.base.BasePooler` for the arguments.

    Example::

        model.roi_heads.mask_pooler._target_=maskrcnn_ext.FastROIPooler
    """

    needs_square = False

    def forward(self, x: list[Tensor], box_lists: list[Boxes]) -> Tensor:
        if not box_lists:
            return x[0].new_zeros((0, x[0].shape[1], *self.output_size))
        tensors = [boxes.tensor for boxes in box_lists]
        # A tracer records the number of boxes from a tensor's shape, not from len().
        images = torch.cat([torch.full_like(boxes[:, :1], image) for image, boxes in enumerate(tensors)])
        rois = torch.cat([images, torch.cat(tensors)], dim=1)
        if len(x) == 1:
            levels = torch.zeros_like(rois[:, 0], dtype=torch.int64)
        else:
            levels = assign_boxes_to_levels(
                box_lists, self.min_level, self.max_level, self.canonical_box_size, self.canonical_level
            )
        return self.pool(x, rois, levels)

    def pool(self, x: list[Tensor], rois: Tensor, levels: Tensor) -> Tensor:
        """Pools RoIs (M, 5), each on its level, (M,) int64; see :func:`maskrcnn_ext.ops.roi_align.roi_align`."""
        return roi_align(
            x, rois, levels, self.scales, self.output_size, sampling_ratio=self.sampling_ratio, aligned=self.aligned
        )
