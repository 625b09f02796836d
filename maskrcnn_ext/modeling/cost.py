"""What a mask head or pooler costs: parameters and multiply-accumulates, counted on tensors without memory."""

from __future__ import annotations

from typing import NamedTuple

import torch
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes, Instances
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from maskrcnn_ext.modeling.parts import Part

_STRIDES = (4, 8, 16, 32)
# Of the image, in pixels: COCO's usual test size, padded.
_HEIGHT, _WIDTH = 800, 1216


class Cost(NamedTuple):
    """Of one part; multiply-accumulates of convolutions and matrix products, not of sampling."""

    parameters: int
    macs_per_roi: int
    macs_per_image: int  # what is done once, whatever the number of RoIs
    output_size: int


def _pyramid(channels: int) -> dict[str, Tensor]:
    shapes = {
        f"p{level}": (1, channels, _HEIGHT // stride, _WIDTH // stride) for level, stride in enumerate(_STRIDES, 2)
    }
    return {name: torch.zeros(shape) for name, shape in shapes.items()}


def _boxes(count: int) -> list[Boxes]:
    return [Boxes(torch.tensor([[0.0, 0.0, 100.0, 100.0]]).repeat(count, 1))]


def head_cost(part: Part, *, channels: int = 256, num_classes: int = 80) -> Cost:
    """Counts a mask head of five convolutions, as every FPN config of Detectron2 has it, in inference.

    Args:
        part: a mask head.
        channels: of the feature maps and of the head's convolutions.
        num_classes: foreground classes.
    """
    # Not on the meta device: where a head is least certain, it has to know.
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
    return Cost(
        sum(parameter.numel() for parameter in head.parameters()),
        macs[1] - macs[0],
        2 * macs[0] - macs[1],
        image.pred_masks.shape[-1],
    )


def pooler_cost(part: Part, *, channels: int = 256) -> Cost:
    """Counts a pooler of 14 x 14 bins on four levels, with the options of its catalogue entry."""
    options = dict(option.split("=") for option in part.options.split())
    own = {"channels": channels} if part.takes_channels else {}
    pooler = part.load()(14, [1 / stride for stride in _STRIDES], 2, "ROIAlignV2", **options, **own).eval()
    features = list(_pyramid(channels).values())
    macs = []
    for count in (1, 2):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            pooler(features, _boxes(count))
        macs.append(counter.get_total_flops() // 2)
    return Cost(sum(p.numel() for p in pooler.parameters()), macs[1] - macs[0], 2 * macs[0] - macs[1], 14)
