"""Detectron2's FPN, of fused convolutions."""

from __future__ import annotations

from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import FPN, Backbone
from torch import Tensor

from maskrcnn_ext.compat import fpn_fuse_type
from maskrcnn_ext.inference.optimization.convolution import FusedConv2d


class FusedFPN(Backbone):
    """An ``FPN`` whose top-down sums are part of the lateral convolutions: no level is upsampled on its own."""

    def __init__(self, fpn: FPN) -> None:
        """Takes over an FPN of which :func:`fuses_pyramid` is true."""
        super().__init__()
        self.fpn = fpn

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """(N, C, H, W) to maps by their names."""
        fpn = self.fpn
        names = list(fpn.output_shape())
        features = fpn.bottom_up(image)
        top_down = fpn.lateral_convs[0](features[fpn.in_features[-1]])
        results = [fpn.output_convs[0](top_down)]
        rest = zip(fpn.in_features[-2::-1], fpn.lateral_convs[1:], fpn.output_convs[1:], strict=True)
        for name, lateral, output in rest:
            top_down = lateral.add_upsampled(features[name], top_down)
            if fpn.top_block is None or name != fpn.top_block.in_feature:
                del features[name]  # the largest maps, before those of the next layer
            if fpn_fuse_type(fpn) == "avg":
                top_down /= 2
            results.insert(0, output(top_down))
        if fpn.top_block is not None:
            own = fpn.top_block.in_feature
            results += fpn.top_block(features[own] if own in features else results[names.index(own)])
        return dict(zip(names, results, strict=True))

    @property
    def size_divisibility(self) -> int:
        """As the FPN's."""
        return int(self.fpn.size_divisibility)

    @property
    def padding_constraints(self) -> dict[str, int]:
        """As the FPN's."""
        constraints: dict[str, int] = self.fpn.padding_constraints
        return constraints

    def output_shape(self) -> dict[str, ShapeSpec]:
        """As the FPN's."""
        shapes: dict[str, ShapeSpec] = self.fpn.output_shape()
        return shapes


def fuses_pyramid(backbone: Backbone) -> bool:
    """Whether a backbone is exactly Detectron2's FPN, with lateral convolutions that are fused and activate nothing."""
    return type(backbone) is FPN and all(
        isinstance(conv, FusedConv2d) and not conv.relu and conv.activation is None for conv in backbone.lateral_convs
    )
