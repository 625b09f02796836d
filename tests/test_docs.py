"""What the documents say works: the code in them runs, the files and configs that they name are there."""

import re

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes

from maskrcnn_ext import get_config
from maskrcnn_ext.config.zoo import config_path
from maskrcnn_ext.data.formats import FORMATS, get_format
from maskrcnn_ext.data.registry.catalog import register
from tests.conftest import ROOT

DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("projects/*/README.md")),
]


def code_blocks(name: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), flags=re.DOTALL)


def anchors_of(document) -> set[str]:
    """Returns the anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.fixture(scope="module")
def contributed():
    blocks = code_blocks("CONTRIBUTING.md")
    names: dict = {}
    for block in blocks:
        assert len([line for line in block.splitlines() if line.strip()]) < 10
        exec(block, names)
    return names


def test_the_example_head_is_one_override(contributed, monkeypatch):
    import maskrcnn_ext

    monkeypatch.setitem(maskrcnn_ext.__dict__, "OneLayerMaskHead", contributed["OneLayerMaskHead"])
    cfg = get_config("mask_rcnn_r50_fpn_1x")
    LazyConfig.apply_overrides(cfg, ["model.roi_heads.mask_head._target_=maskrcnn_ext.OneLayerMaskHead"])
    head = instantiate(cfg.model.roi_heads.mask_head)
    assert head.layers(torch.zeros(3, 256, 14, 14)).shape == (3, 80, 14, 14)


def test_the_example_pooler_pools(contributed):
    pooler = contributed["MaxROIPooler"](7, scales=[0.25], sampling_ratio=0, pooler_type="ROIAlignV2")
    boxes = Boxes(torch.tensor([[0.0, 0.0, 20.0, 20.0]]))
    assert pooler([torch.rand(1, 4, 8, 8)], [boxes]).shape == (1, 4, 7, 7)


def test_the_example_data_set_registers(contributed):
    for name, arguments in contributed["DATASETS"].items():
        register(name, **arguments)
        assert MetadataCatalog.get(name).thing_classes == ["leaf"]
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.mark.parametrize("name", FORMATS)
def test_the_page_on_data_lists_every_format(name):
    found = get_format(name)
    cells = [f"`{name}`", f"`{found.usage}`", found.description]
    cells += [f"`{cell}`" if cell else "" for cell in (found.split_option, found.extra)]
    assert f"| {' | '.join(cells)} |\n" in (ROOT / "docs/data.md").read_text()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_configs_that_a_document_names_are_there(document):
    text = document.read_text()
    for target in re.findall(r"\]\((?!http)([^)]+)\)", text):
        file, _, anchor = target.partition("#")
        linked = document.parent / file if file else document
        assert linked.exists(), target
        assert not anchor or anchor in anchors_of(linked), target
    for path in re.findall(r"\b(?:scripts|configs|tests)/[\w./-]+\.(?:py|sh|txt)", text):
        assert (ROOT / path).is_file(), path
    for name in re.findall(r"(?:maskrcnn-ext configs|--config-file) ([\w/]+\.py)", text):
        assert (ROOT / name).is_file() or config_path(name).is_file()
