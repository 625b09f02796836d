"""A ResNet stem that loads weights trained on three channels into a model for another number of channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.modeling.backbone import BasicStem
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_ext.errors import InputError


class InflatedStem(BasicStem):
    """ResNet's stem for images of any number of channels; it loads the weights of a stem for three channels.

    ``conv1.weight`` has the name and shape of the checkpoint, so that every loader finds it. The weights of the other channels are in
    ``extra_weight``, which is zero before training. Right after loading, the features are therefore those of the pre-trained network. The
    extra weights are trained even if the stem is frozen (``freeze_at``), because they have no pre-trained values.

    Example::

        model.backbone.bottom_up.stem._target_=maskrcnn_ext.InflatedStem model.backbone.bottom_up.stem.in_channels=4
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 64,
        norm: str = "BN",
        pretrained_channels: Sequence[int] = (0, 1, 2),
    ) -> None:
        """Builds Detectron2's BasicStem and the weights of the other channels.

        Args:
            in_channels: channels of the image.
            out_channels: channels of the features.
            norm: norm after the convolution.
            pretrained_channels: the channel of the image for each channel of the pre-trained weights: (2, 1, 0) for weights trained on
                B, G, R and an image of R, G, B, infrared; (0, 0, 0) for a grey image, which is then treated as three equal channels.

        Raises:
            InputError: the image does not have one of `pretrained_channels`.
        """
        own = list(pretrained_channels)
        if not own or not all(0 <= channel < in_channels for channel in own):
            raise InputError(
                f"pretrained_channels={own}: channels of an image of {in_channels} are 0 to {in_channels - 1}; write [0,0,0] for a "
                "grey image and weights of three channels"
            )
        super().__init__(len(own), out_channels, norm)
        self.in_channels = in_channels
        self.order = own + [channel for channel in range(in_channels) if channel not in own]
        self.extra_weight = nn.Parameter(torch.zeros(out_channels, len(self.order) - len(own), *self.conv1.kernel_size))

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H / 4, W / 4)."""
        weight = torch.cat([self.conv1.weight, self.extra_weight], dim=1)
        x = F.conv2d(x[:, self.order], weight, None, self.conv1.stride, self.conv1.padding)
        if self.conv1.norm is not None:
            x = self.conv1.norm(x)
        return F.max_pool2d(F.relu_(x), kernel_size=3, stride=2, padding=1)

    def freeze(self) -> InflatedStem:
        """Freezes the pre-trained weights."""
        super().freeze()
        self.extra_weight.requires_grad_(True)
        return self
