"""Layers that compute as Matterport's: the stem of the ResNet and the RoI pooler."""

from __future__ import annotations

import torch
from detectron2.modeling.backbone import BasicStem
from detectron2.modeling.poolers import convert_boxes_to_pooler_format
from detectron2.structures import Boxes
from torch import Tensor
from torch.nn import functional as F

from maskrcnn_ext.modeling.poolers.crop_resize import CropResizePooler


class SamePoolStem(BasicStem):
    """The stem of a ResNet whose max-pooling starts at the first pixel, as Keras's padding "same" pads an even side at its end only.

    Detectron2's stem pads both ends by one, so each of its windows is one pixel earlier. The convolution is the same.

    Example::

        model.backbone.bottom_up.stem._target_=maskrcnn_ext.modeling.matterport.layers.SamePoolStem
    """

    def forward(self, x: Tensor) -> Tensor:
        """Returns (N, out_channels, H / 4, W / 4) for images (N, C, H, W), H and W multiples of 4."""
        return F.max_pool2d(F.relu_(self.conv1(x)), kernel_size=3, stride=2, padding=0, ceil_mode=True)


class MatterportPooler(CropResizePooler):
    """A :class:`CropResizePooler` that assigns boxes to levels by Matterport's area of a box.

    The level is ``canonical_level + round(log2(sqrt(h * w) / (canonical_box_size / sqrt(H * W))))``, where h and w are the box's extent in
    coordinates normalised by H - 1 and W - 1, and halves are rounded to even. CropResizePooler uses pixels, which assigns another
    level to one box in some hundreds.
    """

    def forward(self, x: list[Tensor], box_lists: list[Boxes]) -> Tensor:
        """Computes RoI features.

        Args:
            x: feature maps (N, C, H_l, W_l), one for each level.
            box_lists: the boxes of N images, in pixels of the padded image.

        Returns:
            (M, C, h, w), M: boxes of all images.
        """
        rois = convert_boxes_to_pooler_format(box_lists)
        levels = self.levels(rois, x[0])
        pooled = x[0].new_zeros((len(rois), x[0].shape[1], *self.output_size))
        for number, (features, pooler) in enumerate(zip(x, self.level_poolers, strict=True)):
            index = torch.nonzero(levels == number)[:, 0]
            pooled = pooled.index_put((index,), pooler(features, rois[index]))
        return pooled

    def levels(self, rois: Tensor, finest: Tensor) -> Tensor:
        """Returns the level (M,) of RoIs (M, 5), 0 for the finest, whose feature map is `finest`."""
        height, width = (size << self.min_level for size in finest.shape[2:])
        extents = (rois[:, 3:] - rois[:, 1:3] - 1).clamp(min=0)
        share = (extents[:, 0] / (width - 1)) * (extents[:, 1] / (height - 1))
        canonical = self.canonical_box_size / (height * width) ** 0.5
        # A box without extent has -inf, which is clamped to the finest level.
        offset = torch.log2(share.sqrt() / canonical).round()
        first = self.canonical_level - 0.5 - self.min_level  # CropResizePooler adds a half
        return (offset + first).clamp(0, self.max_level - self.min_level).long()
