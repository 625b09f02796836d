"""Parameters and multiply-accumulates (MACs) of mask heads and poolers, and the tables of parts that show them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import torch
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from maskrcnn_ext.common.tables import markdown_table
from maskrcnn_ext.modeling.parts import MASK_HEADS, POOLERS, Part

_STRIDES = (4, 8, 16, 32)
# Of the image in pixels: COCO's usual test size, padded.
_HEIGHT, _WIDTH = 800, 1216

HEAD_COLUMNS = ("name", "parameters", "MACs/RoI", "MACs/image", "output", "paper", "mask AP, as published")
POOLER_COLUMNS = ("name", "parameters", "MACs/RoI", "paper", "AP, as published")


class Cost(NamedTuple):
    """Cost of one part. MACs count convolutions and matrix products, not sampling.

    Attributes:
        parameters: number of weights and biases.
        macs_per_roi: MACs that each RoI adds.
        macs_per_image: MACs that an image costs, independent of the number of RoIs.
        output_size: side of the output grid.
    """

    parameters: int
    macs_per_roi: int
    macs_per_image: int
    output_size: int


def head_cost(part: Part, *, channels: int = 256, num_classes: int = 80) -> Cost:
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


def pooler_cost(part: Part, *, channels: int = 256) -> Cost:
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


def head_rows(*, channels: int = 256, num_classes: int = 80) -> list[tuple[str, ...]]:
    """Returns a row for each mask head, with the columns :data:`HEAD_COLUMNS`."""
    rows: list[tuple[str, ...]] = []
    for part in MASK_HEADS:
        cost = head_cost(part, channels=channels, num_classes=num_classes)
        counts = (cost.parameters, cost.macs_per_roi, cost.macs_per_image)
        size = f"{cost.output_size} x {cost.output_size}"
        rows.append((part.name, *map(_short, counts), size, part.paper, part.gain))
    return rows


def pooler_rows(*, channels: int = 256) -> list[tuple[str, ...]]:
    """Returns a row for each pooler, with the columns :data:`POOLER_COLUMNS`."""
    rows: list[tuple[str, ...]] = []
    for part in POOLERS:
        cost = pooler_cost(part, channels=channels)
        rows.append((part.name, _short(cost.parameters), _short(cost.macs_per_roi), part.paper, part.gain))
    return rows


def markdown_parts(heads: Sequence[Sequence[str]], poolers: Sequence[Sequence[str]]) -> str:
    """Returns both tables in Markdown, as docs/parts.md shows them; papers become links.

    Example:
        >>> rows = [["MLPMaskHead", "117 M", "117 M", "0", "28 x 28", "Mask R-CNN, arXiv:1703.06870", "-2.1"]]
        >>> "[Mask R-CNN](https://arxiv.org/abs/1703.06870)" in markdown_parts(rows, [])
        True
    """
    tables = []
    for columns, rows in ((HEAD_COLUMNS, heads), (POOLER_COLUMNS, poolers)):
        cells = [[f"`{row[0]}`", *(_linked(cell) for cell in row[1:])] for row in rows]
        tables.append(markdown_table(cells, columns))
    return "\n\n".join(tables)


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


def _short(number: int) -> str:
    """Returns three digits and a unit: "2.64 M"."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.3g} {unit}"
    return str(number)


def _linked(cell: str) -> str:
    """Makes links of papers such as "DCT-Mask, arXiv:2011.09876"."""
    return re.sub(r"([^;: ][^;:]*), arXiv:([\d.]+)", r"[\1](https://arxiv.org/abs/\2)", cell)


if __name__ == "__main__":
    print(markdown_parts(head_rows(), pooler_rows()))
