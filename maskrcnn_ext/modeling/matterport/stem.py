"""The stem of Keras's ResNet."""

from __future__ import annotations

from detectron2.modeling.backbone import BasicStem
from torch import Tensor
from torch.nn import functional as F


class SamePoolStem(BasicStem):
    """ResNet's stem whose max-pooling begins at the first pixel: padding "same" pads an even side at its end alone.

    Detectron2's pads both ends by one, so that every window lies a pixel before this one's. The convolution is the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W), H and W multiples of 4, -> (N, out_channels, H / 4, W / 4)."""
        return F.max_pool2d(F.relu_(self.conv1(x)), kernel_size=3, stride=2, padding=0, ceil_mode=True)
