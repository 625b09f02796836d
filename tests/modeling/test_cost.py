"""Costs of parts, and docs/parts.md, which shows the catalogue's tables."""

import pytest

from maskrcnn_ext.modeling.cost import head_cost, head_rows, markdown_parts, pooler_cost, pooler_rows
from maskrcnn_ext.modeling.parts import MASK_HEADS, POOLERS, find_part
from tests.conftest import ROOT


def test_costs_equal_a_count_by_hand():
    cost = head_cost(find_part("FCNMaskHead"), channels=32, num_classes=5)
    convs = 4 * 32 * 32 * 9
    deconv, predictor = 32 * 32 * 4, 32 * 5
    assert cost.parameters == convs + 4 * 32 + deconv + 32 + predictor + 5
    assert cost.macs_per_roi == convs * 14 * 14 + deconv * 14 * 14 + predictor * 28 * 28
    assert cost.macs_per_image == 0
    assert cost.output_size == 28


def test_work_per_image_is_separated_from_work_per_roi():
    cost = head_cost(find_part("RefineMaskHead"), channels=32, num_classes=5)
    assert cost.macs_per_image > cost.macs_per_roi > 0
    assert pooler_cost(find_part("PreciseROIPooler"), channels=8) == (0, 0, 0, 14)
    assert pooler_cost(find_part("DeformableROIPooler"), channels=8).parameters > 0


def documented():
    text = (ROOT / "docs/parts.md").read_text()
    return text.partition("maskrcnn_ext.modeling.cost` -->\n\n")[2].partition("\n\n<!-- end of parts -->")[0]


def test_the_page_of_parts_is_what_the_catalogue_prints_for_its_numbers():
    page = documented()
    lines = [line.split("|")[1:-1] for line in page.splitlines() if line.startswith("| `")]
    numbers = [[cell.strip() for cell in line[1:-2]] for line in lines]
    parts = [*MASK_HEADS, *POOLERS]
    rows = [[part.name, *cells, part.paper, part.gain] for part, cells in zip(parts, numbers, strict=True)]
    assert page == markdown_parts(rows[: len(MASK_HEADS)], rows[len(MASK_HEADS) :])


@pytest.mark.slow
def test_the_page_of_parts_is_what_the_catalogue_prints():
    assert documented() == markdown_parts(head_rows(), pooler_rows())
