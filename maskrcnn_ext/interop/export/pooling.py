"""RoI pooling by RoIAlign only: every runtime has it, and it takes the RoIs of several images."""

from __future__ import annotations

from typing import Any

import torch
import torchvision
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes
from torch import Tensor, nn

from maskrcnn_ext.modeling.matterport.layers import MatterportPooler
from maskrcnn_ext.modeling.poolers.crop_resize import CropResizePooler
from maskrcnn_ext.modeling.poolers.fast import FastROIPooler

# These two return the same; only PyTorch has the operator of the fast one.
_ROI_ALIGN = (ROIPooler, FastROIPooler)
_CROP = (CropResizePooler, MatterportPooler)


def supports_batches(pooler: nn.Module | None) -> bool:
    """Returns whether :func:`pool_rois` computes the pooler with RoIAlign; it calls others with the boxes of one image."""
    return type(pooler) in (*_ROI_ALIGN, *_CROP)


def pool_rois(pooler: Any, maps: list[Tensor], rois: Tensor) -> Tensor:
    """Computes the RoI features that a pooler returns.

    Args:
        pooler: with ``level_poolers`` if :func:`supports_batches`.
        maps: feature maps (N, C, H_l, W_l), one for each level.
        rois: (M, 5): image index, x0, y0, x1, y1.

    Returns:
        (M, C, h, w)

    Example::

        features = pool_rois(model.roi_heads.box_pooler, maps, rois)
    """
    if not supports_batches(pooler):
        return pooler(maps, [make_boxes(rois[:, 1:])])
    parts, places = [], []
    levels = _assign_levels(pooler, maps, rois)
    for level, (level_pooler, level_map) in enumerate(zip(pooler.level_poolers, maps, strict=True)):
        index = (levels == level).nonzero()[:, 0]
        if type(pooler) in _CROP:
            parts.append(_crop_and_resize(level_map, rois[index], pooler.output_size, level_pooler.scale))
        else:
            parts.append(level_pooler(level_map, rois[index]))
        places.append(index)
    pooled = torch.cat(parts)[torch.cat(places).argsort()] if len(maps) > 1 else parts[0]
    return pooled.reshape(-1, maps[0].shape[1], *pooler.output_size)  # states the size for tracers


def make_boxes(tensor: Tensor) -> Boxes:
    """Returns Detectron2's ``Boxes`` of a tensor (M, 4) without its constructor, which branches on M: torch.export cannot."""
    boxes = Boxes.__new__(Boxes)
    boxes.tensor = tensor
    return boxes


def _assign_levels(pooler: Any, maps: list[Tensor], rois: Tensor) -> Tensor:
    """Computes Detectron2's ``assign_boxes_to_levels`` without ``Boxes``: the level (M,) of each RoI, 0 for the first."""
    if isinstance(pooler, MatterportPooler):
        return pooler.levels(rois, maps[0])
    sides = rois[:, 3:] - rois[:, 1:3]
    size = (sides[:, 0] * sides[:, 1]).sqrt() / pooler.canonical_box_size
    levels = (pooler.canonical_level + (size + 1e-8).log2()).floor()
    return levels.clamp(pooler.min_level, pooler.max_level) - pooler.min_level


def _crop_and_resize(features: Tensor, rois: Tensor, output_size: tuple[int, int], scale: float) -> Tensor:
    """Computes a level of CropResizePooler: RoIAlign with one sample per bin, its centre, and zeros outside the map."""
    positions, edges = [], []
    for axis, samples in enumerate(output_size):
        last = features.shape[2 + axis] - 1
        image_last = features.shape[2 + axis] / scale - 1
        start, end = rois[:, 2 - axis] / image_last * last, (rois[:, 4 - axis] - 1) / image_last * last
        share = torch.linspace(0, 1, samples, device=rois.device) if samples > 1 else rois.new_tensor([0.5])
        position = start[:, None] * (1 - share) + end[:, None] * share  # exact at either end
        positions.append((position >= 0) & (position <= last))
        half = (end - start) / (2 * max(samples - 1, 1))
        edges.append((start - half + 0.5, end + half + 0.5))
    (y0, y1), (x0, x1) = edges
    bins = torch.stack([rois[:, 0], x0, y0, x1, y1], dim=1)
    pooled = torchvision.ops.roi_align(features, bins, output_size, 1.0, 1, True)
    inside = positions[0][:, None, :, None] & positions[1][:, None, None, :]
    return pooled * inside.to(pooled.dtype)
