"""The level of the pyramid that Matterport pools a box from, to the last digit."""

from __future__ import annotations

import torch
from detectron2.modeling.poolers import convert_boxes_to_pooler_format
from detectron2.structures import Boxes
from torch import Tensor

from maskrcnn_ext.modeling.poolers.crop_resize import CropResizePooler


class MatterportPooler(CropResizePooler):
    """:class:`CropResizePooler` with Matterport's own area of a box.

    The level is ``canonical_level + round(log2(sqrt(h * w) / (canonical_box_size / sqrt(H * W))))``, where h and w are the box's extent in
    coordinates that are normalised by H - 1 and W - 1, and a half goes to the even number. Those of CropResizePooler are pixels, which
    gives another level to a box in some hundreds.
    """

    def forward(self, x: list[Tensor], box_lists: list[Boxes]) -> Tensor:
        """Pools.

        Args:
            x: feature maps (N, C, H_l, W_l), one a level.
            box_lists: N boxes in pixels of the padded image.

        Returns:
            (M, C, h, w) with M boxes of all images.
        """
        rois = convert_boxes_to_pooler_format(box_lists)
        levels = self.levels(rois, x[0])
        pooled = x[0].new_zeros((len(rois), x[0].shape[1], *self.output_size))
        for number, (features, pooler) in enumerate(zip(x, self.level_poolers, strict=True)):
            own = torch.nonzero(levels == number)[:, 0]
            pooled = pooled.index_put((own,), pooler(features, rois[own]))
        return pooled

    def levels(self, rois: Tensor, finest: Tensor) -> Tensor:
        """The level (M,) of RoIs (M, 5), 0 for the finest one, whose features are given."""
        height, width = (size << self.min_level for size in finest.shape[2:])
        extents = (rois[:, 3:] - rois[:, 1:3] - 1).clamp(min=0)
        share = (extents[:, 0] / (width - 1)) * (extents[:, 1] / (height - 1))
        canonical = self.canonical_box_size / (height * width) ** 0.5
        # A box without extent is -inf, which belongs to the finest level.
        offset = torch.log2(share.sqrt() / canonical).round()
        first = self.canonical_level - 0.5 - self.min_level  # CropResizePooler adds a half
        return (offset + first).clamp(0, self.max_level - self.min_level).long()
