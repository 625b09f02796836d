"""The documents are true: the code in them runs, and the files and configs that they name exist."""

import argparse
import re
from functools import cache
from importlib import import_module

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes

from maskrcnn_ext import get_config
from maskrcnn_ext.cli import COMMANDS
from maskrcnn_ext.config.settings import TRAIN
from maskrcnn_ext.config.zoo import config_path
from maskrcnn_ext.data.formats import FORMATS, get_format
from maskrcnn_ext.data.registry.catalog import register
from maskrcnn_ext.engine.main import build_parser
from maskrcnn_ext.modeling.parts import MASK_HEADS, POOLERS
from tests.conftest import ROOT

DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("projects/*/README.md")),
]


def test_the_front_page_counts_the_parts():
    text = (ROOT / "README.md").read_text()
    words = {6: "six", 12: "twelve"}
    assert f"{len(FORMATS)} annotation formats" in text
    assert f"{words[len(MASK_HEADS)]} mask heads" in text
    assert f"{words[len(POOLERS)]} RoI poolers" in text


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
def test_files_and_configs_that_a_document_names_exist(document):
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


def documented_commands(text: str) -> list[list[str]]:
    """Returns the words of each ``maskrcnn-ext`` command in code, without what a shell does with it."""
    code = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
    lines = [line for block in code for line in block.replace("\\\n", " ").splitlines()]
    lines += [found for found in re.findall(r"`([^`\n]+)`", text) if found.startswith("maskrcnn-ext ")]
    commands = []
    for line in lines:
        line = re.sub(r"(?<!\S)#.*", "", line)
        inner = re.findall(r"\$\(([^)]*)\)", line)
        for part in [*inner, *re.split(r"[|;<>]|&&", re.sub(r"\$\([^)]*\)", "FILE", line))]:
            words = part.split()
            if "maskrcnn-ext" in words:
                commands.append(words[words.index("maskrcnn-ext") + 1 :])
    return commands


@cache
def parser_of(name: str) -> argparse.ArgumentParser:
    """Returns the parser of a command."""
    if name == "train-net":
        return build_parser()
    module = import_module(f"maskrcnn_ext.cli.{name.replace('-', '_')}")
    if hasattr(module, "build_parser"):
        found: argparse.ArgumentParser = module.build_parser()
        return found
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return parser


@pytest.fixture(scope="module")
def options_of():
    """Returns the options of a command, those of its parts included."""

    def options(parser: argparse.ArgumentParser) -> set[str]:
        found = set(parser._option_string_actions)
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                found |= set().union(*map(options, action.choices.values()))
        return found

    return lambda name: options(parser_of(name))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_and_options_that_a_document_shows_exist(document, options_of):
    for command, *words in documented_commands(document.read_text()):
        if not command[0].islower():  # COMMAND, --help
            continue
        assert command in COMMANDS
        given = {word.partition("=")[0] for word in words if word.startswith("-")}
        for action in parser_of(command)._actions if given else ():
            assert not (action.required and action.option_strings) or given & set(action.option_strings), action
        for word in words:
            if re.match(r"--?[a-z]", word):
                assert word.partition("=")[0].rstrip(",.:") in options_of(command), f"{command} {word}"
            elif match := re.match(r"train\.(\w+)[\w.]*=", word):
                assert match[1] in {
                    "max_itr": "a misspelt key in an example",
                    **TRAIN,
                    **get_config("common/train/default.py").train,
                }, word


def test_a_command_with_a_wrong_option_would_be_found(options_of):
    text = "```bash\nX=1 maskrcnn-ext predict RUN a.jpg \\\n    --optimise | sort --reverse   # --none\n```\n`maskrcnn-ext train --folds 5`"
    assert documented_commands(text) == [["predict", "RUN", "a.jpg", "--optimise"], ["train", "--folds", "5"]]
    assert "--optimise" not in options_of("predict")
    assert {"--optimize", "-o"} <= options_of("predict")
    assert "--folds" in options_of("train")
    assert "--num-gpus" in options_of("train-net")
    assert "--threads" in options_of("benchmark")
