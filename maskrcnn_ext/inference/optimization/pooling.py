"""The stock RoI pooler as one that takes all levels in one call, into memory that is used again."""

from __future__ import annotations

import torch
from detectron2.layers import ROIAlign
from detectron2.modeling.poolers import ROIPooler
from torch import Tensor, nn

from maskrcnn_ext.modeling.poolers.fast import FastROIPooler
from maskrcnn_ext.ops import roi_align_cpu
from maskrcnn_ext.ops.native import loads
from maskrcnn_ext.ops.roi_align_reference import Grid
from maskrcnn_ext.ops.workspace import Workspace


class OptimizedPooler(FastROIPooler):
    """A FastROIPooler whose results on a CPU, from channels-last maps in float32, are in a workspace."""

    def __init__(self, pooler: ROIPooler, workspace: Workspace) -> None:
        """Takes over a pooler by RoIAlign."""
        levels = list(pooler.level_poolers)
        super().__init__(
            pooler.output_size,
            [level.spatial_scale for level in levels],
            levels[0].sampling_ratio,
            "ROIAlignV2" if levels[0].aligned else "ROIAlign",
            pooler.canonical_box_size,
            pooler.canonical_level,
        )
        self.workspace = workspace

    def pool(self, x: list[Tensor], rois: Tensor, levels: Tensor) -> Tensor:
        """As FastROIPooler's."""
        if not loads(roi_align_cpu.library) or not all(
            level.dtype == torch.float32
            and level.device.type == "cpu"
            and level.is_contiguous(memory_format=torch.channels_last)
            for level in x
        ):
            return super().pool(x, rois, levels)
        grid = Grid(rois, levels, self.scales, self.output_size, self.sampling_ratio, self.aligned, channels_last=True)
        pooled = self.workspace.channels_last(len(rois), x[0].shape[1], *self.output_size)
        return roi_align_cpu.forward(x, grid, pooled)


def is_roi_align(module: nn.Module) -> bool:
    """Whether a module is a pooler by RoIAlign, and nothing else."""
    return type(module) in (ROIPooler, FastROIPooler) and all(type(level) is ROIAlign for level in module.level_poolers)


def fast_pooler(module: nn.Module, workspace: Workspace) -> FastROIPooler | None:
    """Returns a pooler with the results of a pooler by RoIAlign, or None for what is none."""
    if not is_roi_align(module):
        return None
    return OptimizedPooler(module, workspace)
