"""What lies between the layers of heads: ReLUs, predictors, and the order in which fully connected layers take maps."""

from __future__ import annotations

from typing import Any

from detectron2.modeling.roi_heads import FastRCNNConvFCHead
from torch import Tensor, nn

from maskrcnn_ext.inference.optimization.convolution import FusedConv2d, FusedUpsampling


class ChannelsLastFlatten(nn.Module):
    """Flattens maps in the order of their memory."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, H * W * C): a view of a channels-last map."""
        return x.permute(0, 2, 3, 1).flatten(1)


def flatten_as_it_lies(head: nn.Module, grid: tuple[int, int] | None) -> None:
    """Makes a box head flatten in the order of memory, and arranges the weights that follow accordingly.

    Args:
        head: changed, where it is a ``FastRCNNConvFCHead`` with fully connected layers.
        grid: (H, W) of its input; None where that is not known.
    """
    if type(head) is not FastRCNNConvFCHead or not head.fcs or grid is None:
        return
    layer = head.fcs[0]
    maps = layer.weight.data.unflatten(1, (-1, *grid))
    layer.weight.data = maps.permute(0, 2, 3, 1).flatten(1).contiguous()
    head.flatten = ChannelsLastFlatten()


def fuse_sequences(model: nn.Module) -> None:
    """Makes ReLUs that follow fused layers in a sequence part of them, and predictors part of an upsampling layer before them."""
    for sequence in [module for module in model.modules() if isinstance(module, nn.Sequential)]:
        layer: Any = None
        for name, child in list(sequence.named_children()):
            takes_relu = isinstance(layer, FusedUpsampling) and layer.then is None
            takes_relu = takes_relu or (isinstance(layer, FusedConv2d) and layer.activation is None)
            if type(child) is nn.ReLU and takes_relu:
                layer.relu = True
            elif (
                isinstance(layer, FusedUpsampling)
                and isinstance(child, FusedConv2d)
                and layer.then is None
                and child.as_matrix()
            ):
                layer.then = child.as_matrix()
            else:
                layer = child
                continue
            setattr(sequence, name, nn.Identity())
