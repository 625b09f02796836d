"""Deformable RoI pooling of Deformable ConvNets v1 (arXiv:1703.06211) and v2 (arXiv:1811.11168)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.modeling.poolers import assign_boxes_to_levels, convert_boxes_to_pooler_format
from detectron2.structures import Boxes
from torch import Tensor, nn

from maskrcnn_ext.modeling.poolers.base import BasePooler, require_channels
from maskrcnn_ext.ops.deformable_roi_pool import deformable_roi_pool


class DeformableROIPooler(BasePooler):
    """Pools by RoIAlign, predicts from the result where to move each bin, and pools again (v1, section 2.2; v2, section 3.2).

    All levels share two hidden layers. The last layer starts at zero: no bin moves. Offsets and modulation share the hidden layers, as
    the text of v2 says, or with ``mask_branch`` the modulation has a separate one, as in its authors' code. By default each bin starts
    with weight 1, so that training starts from RoIAlign: the modulation is twice a sigmoid. In v2 it is a sigmoid, ``max_modulation=1``.

    The first hidden layer of each branch has ``channels * h * w * fc_dim`` weights: 12.8 million for 7 x 7 bins, 51 million for 14 x 14.

    See :class:`.base.BasePooler` for the shared arguments.

    Args:
        modulated: whether bins are weighted as well as moved (v2), or only moved (v1).
        mask_branch: whether the modulation has a separate hidden layer.
        max_modulation: factor of the sigmoid that weights a bin.
        fc_dim: width of the hidden layers.
        channels: C of the feature maps.
        gamma: widths or heights of the box by which an output of 1 moves a bin.

    Raises:
        InputError: an unknown ``pooler_type``; in ``forward``, feature maps with another number of channels.

    Example::

        model.roi_heads.mask_pooler._target_=maskrcnn_ext.DeformableROIPooler model.roi_heads.mask_pooler.channels=256
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
        mask_branch: bool = False,
        max_modulation: float = 2.0,
        fc_dim: int = 1024,
        channels: int = 256,
        gamma: float = 0.1,
    ) -> None:
        super().__init__(output_size, scales, sampling_ratio, pooler_type, canonical_box_size, canonical_level)
        self.channels = channels
        self.gamma = gamma
        self.max_modulation = max_modulation
        own_mask = modulated and mask_branch
        self.predictor = self._branch(3 if modulated and not own_mask else 2, [fc_dim, fc_dim])
        self.mask_predictor = self._branch(1, [fc_dim]) if own_mask else None

    def _branch(self, outputs: int, fc_dims: list[int]) -> nn.Sequential:
        """Returns layers from pooled features (M, C, h, w) to (M, outputs, h, w), the last of which starts at zero."""
        bins = self.output_size[0] * self.output_size[1]
        last = nn.Linear(fc_dims[-1], outputs * bins)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        layers: list[nn.Module] = [nn.Flatten()]
        for a, b in zip([self.channels * bins, *fc_dims], fc_dims, strict=False):
            layers += [nn.Linear(a, b), nn.ReLU(inplace=True)]
        return nn.Sequential(*layers, last, nn.Unflatten(1, (-1, *self.output_size)))

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
        modulation = prediction[:, 2:] if self.mask_predictor is None else self.mask_predictor(pooled)
        if not modulation.shape[1]:
            return deformed
        return deformed * (self.max_modulation * modulation.sigmoid()).to(deformed.dtype)
