"""Counts parameters and multiply-accumulates (MACs) of mask heads, poolers and backbones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from maskrcnn_ext.modeling.backbones.timm_backbone import TimmBackbone
from maskrcnn_ext.modeling.part_tables import CHANNELS, NUM_CLASSES, Cost
from maskrcnn_ext.modeling.parts import MASK_HEADS, NETWORKS, POOLERS, Part

_STRIDES = (4, 8, 16, 32)
# Of the image in pixels: COCO's usual test size, padded.
_HEIGHT, _WIDTH = 800, 1216


def count_costs(*, channels: int = CHANNELS, num_classes: int = NUM_CLASSES) -> dict[str, Cost]:
    """Returns the cost of every mask head and pooler, by name.

    Args:
        channels: of the feature maps and of the heads' convolutions.
        num_classes: foreground classes.
    """
    heads = {part.name: head_cost(part, channels=channels, num_classes=num_classes) for part in MASK_HEADS}
    return heads | {part.name: pooler_cost(part, channels=channels) for part in POOLERS}


def head_cost(part: Part, *, channels: int = CHANNELS, num_classes: int = NUM_CLASSES) -> Cost:
    """Counts a mask head in inference, with five convolutions as in every FPN config of Detectron2.

    Args:
        part: a mask head.
        channels: of the feature maps and of the head's convolutions.
        num_classes: foreground classes.
    """
    # Not on the meta device: PointRend's subdivision depends on the values of the logits.
    features = _pyramid(channels)
    head = part.load()(
        ShapeSpec(channels=channels, height=14, width=14), num_classes=num_classes, conv_dims=[channels] * 5
    ).eval()
    macs = []
    for count in (1, 2):
        image = Instances((_HEIGHT, _WIDTH), pred_boxes=_boxes(count)[0], scores=torch.ones(count))
        image.pred_classes = torch.zeros(count, dtype=torch.int64)
        x = features if part.pyramid else torch.zeros(count, channels, 14, 14)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            head(x, [image])
        macs.append(counter.get_total_flops() // 2)
    return _cost(head, macs, image.pred_masks.shape[-1])


def pooler_cost(part: Part, *, channels: int = CHANNELS) -> Cost:
    """Counts a pooler of 14 x 14 bins on four levels, with the options of its catalogue entry."""
    options = dict(option.split("=") for option in part.options.split())
    layer_options = {"channels": channels} if part.takes_channels else {}
    pooler = part.load()(14, [1 / stride for stride in _STRIDES], 2, "ROIAlignV2", **options, **layer_options).eval()
    features = list(_pyramid(channels).values())
    macs = []
    for count in (1, 2):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            pooler(features, _boxes(count))
        macs.append(counter.get_total_flops() // 2)
    return _cost(pooler, macs, 14)


def network_cost(name: str) -> tuple[int, int]:
    """Counts a backbone of timm with maps of strides 4 to 32, without neck and heads.

    Args:
        name: timm's name.

    Returns:
        The number of parameters, and the MACs of an image of 800 x 1216.
    """
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        net = TimmBackbone(name, pretrained=False).eval()
        net(torch.zeros(1, 3, _HEIGHT, _WIDTH))
    return sum(parameter.numel() for parameter in net.parameters()), counter.get_total_flops() // 2


def _pyramid(channels: int) -> dict[str, Tensor]:
    shapes = {
        f"p{level}": (1, channels, _HEIGHT // stride, _WIDTH // stride) for level, stride in enumerate(_STRIDES, 2)
    }
    return {name: torch.zeros(shape) for name, shape in shapes.items()}


def _boxes(count: int) -> list[Boxes]:
    return [Boxes(torch.tensor([[0.0, 0.0, 100.0, 100.0]]).repeat(count, 1))]


def _cost(part: nn.Module, macs: Sequence[int], output_size: int) -> Cost:
    """Separates the MACs of one and of two RoIs into those of a RoI and those of the image."""
    parameters = sum(parameter.numel() for parameter in part.parameters())
    return Cost(parameters, macs[1] - macs[0], 2 * macs[0] - macs[1], output_size)


def main() -> None:
    """Prints the records of part_tables.py and of the networks in parts.py, as Python."""
    for name, cost in count_costs().items():
        print(f'    "{name}": Cost{tuple(cost)},')
    for net in NETWORKS:
        print(net.name, *network_cost(net.name))


if __name__ == "__main__":
    main()
