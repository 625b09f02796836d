"""Deformable RoI pooling of Deformable ConvNets v1 (arXiv:1703.06211) and v2 (arXiv:1811.11168)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.modeling.poolers import ROIPooler, assign_boxes_to_levels, convert_boxes_to_pooler_format
from detectron2.structures import Boxes
from torch import Tensor, nn

from maskrcnn_ext.modeling.poolers.arguments import ALIGNED, as_pair_of_levels, require_channels, require_one_of
from maskrcnn_ext.ops.deformable_roi_pool import deformable_roi_pool


class DeformableROIPooler(ROIPooler):
    """Pools by RoIAlign, predicts from that where to move every bin, and pools again (v1, section 2.2; v2, section 3.2).

    Two hidden layers, as in v2, serve all levels. The layer after them starts at zero: no bin moves and every bin has weight 1, so
    training starts from RoIAlign. To that end the modulation is twice the sigmoid of v2, between 0 and 2.

    The first hidden layer has ``channels * h * w * fc_dim`` weights: 12.8 million for 7 x 7 bins, 51 million for 14 x 14.

    The arguments are those of Detectron2's ROIPooler and some more; ``forward`` takes feature maps (N, C, H, W), one a level, and
    N ``Boxes``, and returns (M, C, h, w) with M boxes of all images.

    Args:
        output_size: bins along the height and the width, one number, or a pair where there is one level.
        scales: 1 / stride of every level.
        sampling_ratio: samples per bin and axis; 0 takes as many as a bin has pixels, rounded up.
        pooler_type: RoIAlign's kind, "ROIAlignV2" or "ROIAlign".
        canonical_box_size: square root of a box's area, in pixels, that belongs to ``canonical_level``.
        canonical_level: log2 of that level's stride.
        modulated: whether bins are weighted, too (v2), or moved only (v1).
        fc_dim: width of the hidden layers.
        channels: C of the feature maps.
        gamma: widths or heights of the box by which an output of 1 moves a bin.

    Raises:
        InputError: for another ``pooler_type``, and in ``forward`` for feature maps of another number of channels.
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
        modulated: bool = True,
        fc_dim: int = 1024,
        channels: int = 256,
        gamma: float = 0.1,
    ) -> None:
        require_one_of(self, "pooler_type", pooler_type, tuple(ALIGNED))
        size = as_pair_of_levels(self, output_size, scales)
        super().__init__(size, list(scales), sampling_ratio, pooler_type, canonical_box_size, canonical_level)
        self.scales = list(scales)
        self.sampling_ratio = sampling_ratio
        self.aligned = ALIGNED[pooler_type]
        self.channels = channels
        self.gamma = gamma

        bins = size[0] * size[1]
        last = nn.Linear(fc_dim, (3 if modulated else 2) * bins)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.predictor = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * bins, fc_dim),
            nn.ReLU(inplace=True),
            nn.Linear(fc_dim, fc_dim),
            nn.ReLU(inplace=True),
            last,
            nn.Unflatten(1, (-1, *size)),
        )

    def forward(self, x: list[Tensor], box_lists: list[Boxes]) -> Tensor:
        require_channels(self, self.channels, x[0].shape[1])
        pooled = super().forward(x, box_lists)
        if not box_lists:
            return pooled
        prediction = self.predictor(pooled)
        offsets = self.gamma * prediction[:, :2]

        rois = convert_boxes_to_pooler_format(box_lists)
        levels = assign_boxes_to_levels(
            box_lists, self.min_level, self.max_level, self.canonical_box_size, self.canonical_level
        )
        deformed = torch.zeros_like(pooled)
        for level, (features, scale) in enumerate(zip(x, self.scales, strict=True)):
            (of_level,) = torch.nonzero(levels == level, as_tuple=True)
            moved = deformable_roi_pool(
                features,
                rois[of_level],
                offsets[of_level],
                scale,
                sampling_ratio=self.sampling_ratio,
                aligned=self.aligned,
            )
            deformed.index_put_((of_level,), moved)
        modulation = prediction[:, 2:]
        return deformed * (2 * modulation.sigmoid()).to(deformed.dtype) if modulation.shape[1] else deformed
