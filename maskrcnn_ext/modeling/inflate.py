"""Pre-trained weights for images of another number of channels than they were trained on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.modeling.backbone import BasicStem
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_ext.errors import InputError


class InflatedStem(BasicStem):
    """ResNet's stem for any number of channels that loads the weights of three: ``stem._target_=maskrcnn_ext.InflatedStem``.

    ``conv1.weight`` stays as it is in the file, so that every loader finds it; the other channels have a parameter of their own,
    ``extra_weight``, which is zero before training. With fresh pre-trained weights the features are therefore those of the network
    on its own channels, and the extra ones come in as training finds use for them. They are trained also where the stem is frozen
    (``freeze_at``), as nothing could be learned of them otherwise.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 64,
        norm: str = "BN",
        pretrained_channels: Sequence[int] = (0, 1, 2),
    ) -> None:
        """As :class:`detectron2.modeling.backbone.BasicStem`, and:

        Args:
            in_channels: of the image.
            out_channels: of the features.
            norm: after the convolution.
            pretrained_channels: the image's channel that each channel of the weights sees. (2, 1, 0) for weights trained on B, G, R
                and an image of R, G, B, infrared; (0, 0, 0) for a grey image, whose features are then those of three equal channels.

        Raises:
            InputError: a channel that the image does not have.
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
        """Freezes what is pre-trained."""
        super().freeze()
        self.extra_weight.requires_grad_(True)
        return self
