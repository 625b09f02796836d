"""Recorded costs of the catalogue's parts, and the tables that show them. Plain data: it is printed without importing torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from maskrcnn_ext.common.tables import markdown_table
from maskrcnn_ext.modeling.parts import MASK_HEADS, NETWORKS, POOLERS

HEAD_COLUMNS = (
    *("name", "parameters", "MACs/RoI", "MACs/image", "output", "paper", "mask AP, as published"),
    *("boundary AP here, on nuclei", "on kudzu bugs"),
)
POOLER_COLUMNS = ("name", "parameters", "MACs/RoI", "paper", "AP, as published")
NETWORK_COLUMNS = ("name", "parameters", "MACs/image", "licence of the weights", "paper")

# What RECORDED_COSTS are counted for.
CHANNELS, NUM_CLASSES = 256, 80


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


# Counted by `python -m maskrcnn_ext.modeling.cost`, which takes a quarter of a minute.
RECORDED_COSTS = {
    "FCNMaskHead": Cost(2643280, 529858560, 0, 28),
    "MLPMaskHead": Cost(116718848, 116654080, 0, 28),
    "SoftmaxMaskHead": Cost(2643537, 530059264, 0, 28),
    "BoundaryMaskHead": Cost(5418144, 1085407232, 0, 28),
    "DCTMaskHead": Cost(55098668, 515624960, 0, 128),
    "PatchDCTMaskHead": Cost(68817916, 5057155616, 0, 112),
    "PointRendMaskHead": Cost(18461856, 924286976, 0, 224),
    "ImplicitPointRendMaskHead": Cost(304716880, 1204125696, 0, 224),
    "RefineMaskHead": Cost(2837393, 617415680, 5918515200, 112),
    "FullRefineMaskHead": Cost(6407003, 1445821440, 150433792000, 112),
    "SimpleRefineMaskHead": Cost(6317678, 1406985216, 150418227200, 112),
    "MaskScoringHead": Cost(18983584, 920003584, 0, 28),
    "FastROIPooler": Cost(0, 0, 0, 14),
    "GenericROIPooler": Cost(1896961, 1316067088, 6322176, 14),
    "PreciseROIPooler": Cost(0, 0, 0, 14),
    "ROIWarpPooler": Cost(0, 0, 0, 14),
    "CropResizePooler": Cost(0, 0, 0, 14),
    "DeformableROIPooler": Cost(53033548, 53030912, 0, 14),
}


def head_rows(costs: Mapping[str, Cost]) -> list[tuple[str, ...]]:
    """Returns a row for each mask head, with the columns :data:`HEAD_COLUMNS`."""
    rows: list[tuple[str, ...]] = []
    for part in MASK_HEADS:
        cost = costs[part.name]
        counts = (cost.parameters, cost.macs_per_roi, cost.macs_per_image)
        size = f"{cost.output_size} x {cost.output_size}"
        rows.append((part.name, *map(_short, counts), size, part.paper, part.gain, part.on_nuclei, part.on_kudzu_bugs))
    return rows


def pooler_rows(costs: Mapping[str, Cost]) -> list[tuple[str, ...]]:
    """Returns a row for each pooler, with the columns :data:`POOLER_COLUMNS`."""
    rows: list[tuple[str, ...]] = []
    for part in POOLERS:
        cost = costs[part.name]
        rows.append((part.name, _short(cost.parameters), _short(cost.macs_per_roi), part.paper, part.gain))
    return rows


def network_rows() -> list[tuple[str, ...]]:
    """Returns a row for each tested network, with the columns :data:`NETWORK_COLUMNS`."""
    return [(net.name, _short(net.parameters), _short(net.macs), net.licence, net.paper) for net in NETWORKS]


def markdown_parts(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table in Markdown, as the documents show it; papers become links.

    Example:
        >>> rows = [["MLPMaskHead", "117 M", "117 M", "0", "28 x 28", "Mask R-CNN, arXiv:1703.06870", "-2.1", "-"]]
        >>> "[Mask R-CNN](https://arxiv.org/abs/1703.06870)" in markdown_parts(HEAD_COLUMNS, rows)
        True
    """
    return markdown_table([[f"`{row[0]}`", *(_linked(cell) for cell in row[1:])] for row in rows], columns)


def _short(number: int) -> str:
    """Returns three digits and a unit: "2.64 M"."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.3g} {unit}"
    return str(number)


def _linked(cell: str) -> str:
    """Makes links of papers such as "DCT-Mask, arXiv:2011.09876"."""
    return re.sub(r"([^;: ][^;:]*), arXiv:([\d.]+)", r"[\1](https://arxiv.org/abs/\2)", cell)
