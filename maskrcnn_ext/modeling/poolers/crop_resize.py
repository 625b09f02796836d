"""The pooling of Keras's Mask R-CNN (Matterport): ``tf.image.crop_and_resize`` on the nearest level."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from maskrcnn_ext.modeling.poolers.base import BasePooler, LevelOperation
from maskrcnn_ext.ops.crop_and_resize import crop_and_resize


class CropResizePooler(BasePooler):
    """One bilinear sample a bin with corners aligned, no gradient for the boxes, and the FPN level rounded to the nearest.

    A box (x0, y0, x1, y1) in pixels of an image of h x w pixels, which is padded to ``stride`` times the feature map, is normalised
    as by Matterport's ``norm_boxes``: y to ``y0 / (h - 1)`` and ``(y1 - 1) / (h - 1)``, x likewise. Sample i of s then is at
    ``(y0 + i * (y1 - 1 - y0) / (s - 1)) * (H - 1) / (h - 1)`` of H rows. Outside the feature map it is 0.

    The level is ``round(canonical_level + log2(sqrt(area) / canonical_box_size))``. A half is rounded up; Keras rounds it to the even
    level. ``sampling_ratio`` and ``pooler_type`` have no effect. See :class:`.base.BasePooler` for the arguments.

    Example::

        model.roi_heads.mask_pooler._target_=maskrcnn_ext.CropResizePooler
    """

    level_shift = 0.5  # Detectron2 rounds down

    def level_operation(self) -> LevelOperation:
        return partial(_crop_level, output_size=self.output_size)


def _crop_level(features: Tensor, rois: Tensor, *, output_size: tuple[int, int], spatial_scale: float) -> Tensor:
    # An image of a single pixel has no extent to divide by.
    image_height, image_width = (max(size / spatial_scale - 1, 1) for size in features.shape[2:])
    images, x0, y0, x1, y1 = rois.unbind(1)
    boxes = [y0 / image_height, x0 / image_width, (y1 - 1) / image_height, (x1 - 1) / image_width]
    return crop_and_resize(features, torch.stack(boxes, dim=1), images.long(), output_size)
