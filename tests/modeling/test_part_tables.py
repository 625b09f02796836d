"""The tables of parts in the documents are those of the catalogue."""

from maskrcnn_ext.modeling.part_tables import (
    HEAD_COLUMNS,
    NETWORK_COLUMNS,
    POOLER_COLUMNS,
    RECORDED_COSTS,
    head_rows,
    markdown_parts,
    network_rows,
    pooler_rows,
)
from maskrcnn_ext.modeling.parts import MASK_HEADS
from tests.conftest import ROOT


def documented(page, marker):
    """The text between two comments of a page."""
    return (ROOT / page).read_text().partition(f"<!-- {marker}")[2].partition("-->\n\n")[2].partition("\n\n<!-- end")[0]


def test_the_page_of_parts_shows_the_catalogue_and_its_recorded_costs():
    tables = [
        markdown_parts(HEAD_COLUMNS, head_rows(RECORDED_COSTS)),
        markdown_parts(POOLER_COLUMNS, pooler_rows(RECORDED_COSTS)),
    ]
    assert documented("docs/parts.md", "parts") == "\n\n".join(tables)


def test_the_page_of_backbones_shows_the_tested_networks():
    assert documented("docs/backbones.md", "networks") == markdown_parts(NETWORK_COLUMNS, network_rows())


def test_the_readme_shows_what_each_head_brings():
    columns = ("head", "mask AP on COCO, as published", "boundary AP here, on nuclei", "on kudzu bugs")
    rows = [(head.name, head.gain, head.on_nuclei, head.on_kudzu_bugs) for head in MASK_HEADS]
    assert documented("README.md", "heads") == markdown_parts(columns, rows)
