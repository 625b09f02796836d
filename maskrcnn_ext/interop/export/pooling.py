"""Poolers as RoIAlign alone, which every runtime has, and which takes the RoIs of several images."""

from __future__ import annotations

from typing import Any

import torch
import torchvision
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes
from torch import Tensor, nn

from maskrcnn_ext.modeling.matterport.pooler import MatterportPooler
from maskrcnn_ext.modeling.poolers.crop_resize import CropResizePooler
from maskrcnn_ext.modeling.poolers.fast import FastROIPooler

_ROI_ALIGN = (ROIPooler, FastROIPooler)  # which give the same; the fast one's operator is known to PyTorch alone
_CROP = (CropResizePooler, MatterportPooler)


def takes_several_images(pooler: nn.Module | None) -> bool:
    """Whether :func:`pool` knows the pooler's arithmetic, and need not hand it boxes in Detectron2's lists of one an image."""
    return type(pooler) in (*_ROI_ALIGN, *_CROP)


def pool(pooler: Any, maps: list[Tensor], rois: Tensor) -> Tensor:
    """Pools RoIs (M, 5), the image's number and x0, y0, x1, y1, from feature maps (N, C, H_l, W_l): (M, C, h, w)."""
    if not takes_several_images(pooler):
        return pooler(maps, [as_boxes(rois[:, 1:])])
    parts, places = [], []
    levels = _levels(pooler, maps, rois)
    for level, (level_pooler, level_map) in enumerate(zip(pooler.level_poolers, maps, strict=True)):
        own = (levels == level).nonzero()[:, 0]
        parts.append(
            _crop(level_pooler, level_map, rois[own]) if type(pooler) in _CROP else level_pooler(level_map, rois[own])
        )
        places.append(own)
    pooled = torch.cat(parts)[torch.cat(places).argsort()] if len(maps) > 1 else parts[0]
    return pooled.reshape(-1, maps[0].shape[1], *pooler.output_size)  # so that tracers know the size


def as_boxes(tensor: Tensor) -> Boxes:
    """(M, 4) as Detectron2's Boxes, whose constructor asks whether there are any: torch.export cannot tell."""
    boxes = Boxes.__new__(Boxes)
    boxes.tensor = tensor
    return boxes


def _levels(pooler: Any, maps: list[Tensor], rois: Tensor) -> Tensor:
    """Detectron2's assign_boxes_to_levels, whose Boxes ask whether there are any; 0 for the first level."""
    if isinstance(pooler, MatterportPooler):
        return pooler.levels(rois, maps[0])
    sides = rois[:, 3:] - rois[:, 1:3]
    size = (sides[:, 0] * sides[:, 1]).sqrt() / pooler.canonical_box_size
    levels = (pooler.canonical_level + (size + 1e-8).log2()).floor()
    return levels.clamp(pooler.min_level, pooler.max_level) - pooler.min_level


def _crop(pooler: Any, features: Tensor, rois: Tensor) -> Tensor:
    """A level of CropResizePooler: RoIAlign with a sample a bin, whose bins lie around the samples, and zeros beyond the map."""
    positions, edges = [], []
    for axis, samples in enumerate(pooler.output_size):
        last = features.shape[2 + axis] - 1
        image_last = features.shape[2 + axis] / pooler.scale - 1
        start, end = rois[:, 2 - axis] / image_last * last, (rois[:, 4 - axis] - 1) / image_last * last
        share = torch.linspace(0, 1, samples, device=rois.device) if samples > 1 else rois.new_tensor([0.5])
        position = start[:, None] * (1 - share) + end[:, None] * share  # exact at either end
        positions.append((position >= 0) & (position <= last))
        half = (end - start) / (2 * max(samples - 1, 1))
        edges.append((start - half + 0.5, end + half + 0.5))
    (y0, y1), (x0, x1) = edges
    bins = torch.stack([rois[:, 0], x0, y0, x1, y1], dim=1)
    pooled = torchvision.ops.roi_align(features, bins, pooler.output_size, 1.0, 1, True)
    inside = positions[0][:, None, :, None] & positions[1][:, None, None, :]
    return pooled * inside.to(pooled.dtype)
