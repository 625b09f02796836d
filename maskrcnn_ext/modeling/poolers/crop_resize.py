"""The pooling of Keras's Mask R-CNN (Matterport): ``tf.image.crop_and_resize`` on the level that is nearest."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.modeling.poolers import ROIPooler
from torch import Tensor, nn

from maskrcnn_ext.modeling.poolers.arguments import ALIGNED, as_pair_of_levels, require_one_of
from maskrcnn_ext.ops.crop_and_resize import crop_and_resize


class CropResizePooler(ROIPooler):
    """One bilinear sample a bin with corners aligned, no gradient through boxes, and the FPN level by rounding, not by flooring.

    A box (x0, y0, x1, y1) in pixels of an image of h x w pixels, which is padded to ``stride`` times the feature map, is normalised
    as Matterport's ``norm_boxes`` does it, y by ``y0 / (h - 1)`` and ``(y1 - 1) / (h - 1)``, x likewise. Sample i of s then lies at
    ``(y0 + i * (y1 - 1 - y0) / (s - 1)) * (H - 1) / (h - 1)`` of H rows. Outside the feature map it is 0.

    The level is ``round(canonical_level + log2(sqrt(area) / canonical_box_size))``. A half goes up; Keras's goes to the even level.

    The arguments are those of Detectron2's ROIPooler; ``forward`` takes feature maps (N, C, H, W), one a level, and N ``Boxes``, and
    returns (M, C, h, w) with M boxes of all images.

    Args:
        output_size: samples along the height and the width, one number, or a pair where there is one level.
        scales: 1 / stride of every level.
        sampling_ratio: without effect; a bin has one sample.
        pooler_type: "ROIAlignV2" or "ROIAlign", without effect; corners are aligned in a third way.
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
        # Detectron2 floors: half a level more makes it round.
        super().__init__(size, list(scales), sampling_ratio, pooler_type, canonical_box_size, canonical_level + 0.5)
        self.level_poolers = nn.ModuleList(_CropResizeLevel(size, scale) for scale in scales)


class _CropResizeLevel(nn.Module):
    def __init__(self, output_size: tuple[int, int], scale: float) -> None:
        super().__init__()
        self.output_size = output_size
        self.scale = scale

    def forward(self, features: Tensor, rois: Tensor) -> Tensor:
        # An image of a single pixel has no extent to divide by.
        image_height, image_width = (max(size / self.scale - 1, 1) for size in features.shape[2:])
        images, x0, y0, x1, y1 = rois.unbind(1)
        boxes = [y0 / image_height, x0 / image_width, (y1 - 1) / image_height, (x1 - 1) / image_width]
        return crop_and_resize(features, torch.stack(boxes, dim=1), images.long(), self.output_size)
