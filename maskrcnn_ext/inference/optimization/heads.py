"""What lies between the layers of heads: ReLUs, the order in which fully connected layers take maps, and masks that nobody asks for."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.modeling.roi_heads import FastRCNNConvFCHead, MaskRCNNConvUpsampleHead
from detectron2.structures import Instances
from torch import Tensor, nn

from maskrcnn_ext.inference.optimization.convolution import FusedConv2d, FusedUpsampling
from maskrcnn_ext.modeling.mask_heads.fcn import FCNMaskHead


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


class OwnClassMaskHead(nn.Module):
    """A fully convolutional mask head that predicts of each RoI the mask of its own class, and not those of all others."""

    def __init__(self, head: nn.Module) -> None:
        """Takes over a head of which :func:`own_class` has found that it can be one."""
        super().__init__()
        *layers, predictor = head.children()
        weight, bias = predictor.as_matrix()
        self.weight, self.bias = weight.T.contiguous(), bias
        self.upsampling: FusedUpsampling | None = None
        if isinstance(layers[-2], FusedUpsampling):
            *layers, self.upsampling, _ = layers
            self.upsampling.relu = True
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor, instances: list[Instances]) -> list[Instances]:
        """As Detectron2's heads in inference: the instances, with ``pred_masks`` (R_i, 1, S, S)."""
        probs = self.logits(x, torch.cat([image.pred_classes for image in instances]))[:, None].sigmoid()
        for image, masks in zip(instances, probs.split([len(image) for image in instances]), strict=True):
            image.pred_masks = masks
        return instances

    def logits(self, x: Tensor, classes: Tensor) -> Tensor:
        """(R, C, H, W) features of R RoIs and their classes (R,) to (R, S, S), in float32."""
        row = classes if len(self.weight) > 1 else torch.zeros_like(classes)
        weight, bias = self.weight[row], self.bias[row]
        x = self.layers(x)
        if self.upsampling is not None:
            return self.upsampling(x, (weight, bias))[:, 0]
        pixels = x.float().permute(0, 2, 3, 1).flatten(1, 2)  # (R, S * S, C)
        return torch.baddbmm(bias[:, None, None], pixels, weight[:, :, None]).view(len(x), *x.shape[2:])


def own_class(head: nn.Module) -> OwnClassMaskHead | None:
    """Returns the head that predicts less of a mask head whose convolutions are fused; None of one that is not Mask R-CNN's own."""
    if type(head) not in (MaskRCNNConvUpsampleHead, FCNMaskHead):
        return None
    predictor = head.predictor
    return OwnClassMaskHead(head) if isinstance(predictor, FusedConv2d) and predictor.as_matrix() else None


def fuse_sequences(model: nn.Module) -> None:
    """Makes ReLUs that follow fused layers in a sequence part of them."""
    for sequence in [module for module in model.modules() if isinstance(module, nn.Sequential)]:
        layer: Any = None
        for name, child in list(sequence.named_children()):
            takes_relu = isinstance(layer, FusedUpsampling) and not layer.relu
            takes_relu = takes_relu or (isinstance(layer, FusedConv2d) and layer.activation is None)
            if type(child) is nn.ReLU and takes_relu:
                layer.relu = True
                setattr(sequence, name, nn.Identity())
            else:
                layer = child
