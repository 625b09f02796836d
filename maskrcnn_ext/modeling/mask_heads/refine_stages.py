"""The stages of RefineMask: they fuse features of the instance, semantic features and masks, and double the size."""

from __future__ import annotations

import torch
from detectron2.layers import Conv2d
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_ext.modeling.mask_heads.layers import conv, deconv, make_norm

DILATIONS = (1, 3, 5)


class SemanticFusion(nn.Module):
    """One light stage of refinement: the Semantic Fusion Module and the upsampling after it (arXiv:2104.08569, section 3).

    Of the three parallel 3 x 3 convolutions, the dilated ones (3 and 5) are depthwise here. The paper adds the masks again and upsamples
    bilinearly after a 1 x 1 convolution; here a 2 x 2 transposed convolution does both.
    """

    def __init__(self, in_channels: int, semantic_channels: int, dim: int, *, norm: str = "") -> None:
        """Builds the stage.

        Args:
            in_channels: channels of the instance features.
            semantic_channels: channels of the semantic features, without the mask.
            dim: channels inside and after the stage.
            norm: norm of the convolutions, a name that :func:`detectron2.layers.get_norm` knows.
        """
        super().__init__()
        self.reduce = conv(in_channels + semantic_channels + 2, dim, kernel_size=1, norm=norm)
        self.branches = nn.ModuleList(
            [
                conv(dim, dim, norm=norm),
                depthwise_conv(dim, dilation=3, norm=norm),
                depthwise_conv(dim, dilation=5, norm=norm),
            ]
        )
        self.upsample = deconv(dim + 2, dim)

    def forward(self, features: Tensor, semantic: Tensor, mask: Tensor) -> Tensor:
        """Returns (R, dim, 2 S, 2 S).

        Args:
            features: (R, in_channels, S, S).
            semantic: (R, semantic_channels + 1, S, S), the semantic mask last.
            mask: (R, 1, S, S) in [0, 1], of the RoI's class.
        """
        x = self.reduce(torch.cat([features, semantic, mask], dim=1))
        x = sum([self.branches[0](x), *self._dilated(x)])
        upsampled: Tensor = self.upsample(torch.cat([x, semantic[:, -1:], mask], dim=1))
        return upsampled

    def _dilated(self, x: Tensor) -> list[Tensor]:
        """Returns what the dilated branches make of (R, dim, S, S), each in the same shape."""
        if not (x.is_cpu and torch.is_autocast_enabled("cpu")):
            return [branch(x) for branch in self.branches[1:]]
        # In bf16, oneDNN's gradients of dilated depthwise weights are wrong, up to NaN, for channels-last maps of 56 x 56 (torch 2.14).
        with torch.autocast("cpu", enabled=False):
            return [branch(x.float()) for branch in self.branches[1:]]


def depthwise_conv(dim: int, *, dilation: int, norm: str = "") -> Conv2d:
    """Returns a 3 x 3 convolution of each channel, with norm and ReLU."""
    layer = Conv2d(
        dim,
        dim,
        kernel_size=3,
        padding=dilation,
        dilation=dilation,
        groups=dim,
        bias=not norm,
        norm=make_norm(norm, dim),
        activation=nn.ReLU(),
    )
    # fan_in: with groups, fan_out would make the weights too small.
    nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class FullSemanticFusion(nn.Module):
    """One stage of RefineMask with the layers of its paper and code (arXiv:2104.08569, section 3, figure 4).

    1 x 1 convolutions merge the inputs, fuse the sum of three 3 x 3 convolutions of dilation 1, 3 and 5, and reduce the channels. The
    result is enlarged bilinearly, and the masks are added again.
    """

    def __init__(self, dim: int, out_dim: int, *, norm: str = "") -> None:
        """Builds the stage.

        Args:
            dim: channels of the instance features and of the semantic features.
            out_dim: channels after the stage, with the two masks.
            norm: norm of the convolutions except the last, a name that :func:`detectron2.layers.get_norm` knows.
        """
        super().__init__()
        self.semantic = conv(dim, dim, kernel_size=1, norm=norm)
        self.reduce = conv(2 * dim + 2, dim, kernel_size=1, norm=norm)
        self.branches = nn.ModuleList([conv(dim, dim, dilation=dilation, norm=norm) for dilation in DILATIONS])
        self.merge = conv(dim, dim, kernel_size=1, norm=norm)
        self.shrink = conv(dim, out_dim - 2, kernel_size=1)

    def forward(self, features: Tensor, semantic: Tensor, mask: Tensor) -> Tensor:
        """Returns (R, out_dim, 2 S, 2 S). The arguments are those of :meth:`SemanticFusion.forward`."""
        masks = torch.cat([mask, semantic[:, -1:]], dim=1)
        x = self.reduce(torch.cat([features, self.semantic(semantic[:, :-1]), masks], dim=1))
        x = self.shrink(self.merge(sum(branch(x) for branch in self.branches)))
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        masks = F.interpolate(masks, scale_factor=2.0, mode="bilinear", align_corners=True)
        return torch.cat([x, masks], dim=1)


class SimpleSemanticFusion(nn.Module):
    """One stage of the authors' faster variant of RefineMask.

    There is no semantic mask, the mean over the RoI is a fourth branch, and the mask is added before the size doubles.
    """

    def __init__(self, dim: int, out_dim: int, *, enlarge: bool = True, norm: str = "") -> None:
        """Builds the stage.

        Args:
            dim: channels of the instance features and of the semantic features.
            out_dim: channels after the stage, with the mask.
            enlarge: whether the stage doubles the size.
            norm: norm of the convolutions except the last, a name that :func:`detectron2.layers.get_norm` knows.
        """
        super().__init__()
        self.enlarge = enlarge
        self.reduce = conv(2 * dim + 1, dim, kernel_size=1, norm=norm)
        self.branches = nn.ModuleList([conv(dim, dim, dilation=dilation, norm=norm) for dilation in DILATIONS])
        self.merge = conv(dim, dim, kernel_size=1, norm=norm)
        self.shrink = conv(dim, out_dim - 1, kernel_size=1)

    def forward(self, features: Tensor, semantic: Tensor, mask: Tensor) -> Tensor:
        """Returns (R, out_dim, 2 S, 2 S), or (R, out_dim, S, S) without ``enlarge``.

        Args:
            features: (R, dim, S, S).
            semantic: (R, dim, S, S).
            mask: (R, 1, S, S) in [0, 1], of the RoI's class.
        """
        x = self.reduce(torch.cat([features, semantic, mask], dim=1))
        x = self.merge(sum(branch(x) for branch in self.branches) + x.mean(dim=(2, 3), keepdim=True))
        x = torch.cat([self.shrink(x), mask], dim=1)
        return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False) if self.enlarge else x
