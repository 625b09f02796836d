"""The catalogue of parts lists every part, and the overrides it prints work."""

import inspect

import pytest
from detectron2.config import LazyConfig, instantiate

import maskrcnn_ext
from maskrcnn_ext import InputError, get_config
from maskrcnn_ext.config.overrides import apply_overrides
from maskrcnn_ext.modeling.mask_heads.base import MaskHead
from maskrcnn_ext.modeling.parts import MASK_HEADS, NETWORKS, OTHERS, POOLERS, find_part

PARTS = [*MASK_HEADS, *POOLERS]


def test_every_exported_part_is_in_the_catalogue():
    exported = {name for name in maskrcnn_ext._exports() if name.endswith(("MaskHead", "ScoringHead", "Pooler"))}
    assert exported == {part.name for part in PARTS}


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_the_override_builds_the_part(part):
    cfg = LazyConfig.apply_overrides(get_config("mask_rcnn_r50_fpn_1x"), part.override().split())
    node = cfg.model.roi_heads[part.node]
    if part.node == "mask_head":
        node.num_classes = 1
        assert (cfg.model.roi_heads.mask_pooler is None) == part.pyramid
    if part.name == "ImplicitPointRendMaskHead":
        node.fc_dim = 8  # 290 million weights otherwise
    assert type(instantiate(node)) is part.load()


@pytest.mark.parametrize("part", [*PARTS, *OTHERS], ids=lambda part: part.name)
def test_the_page_of_a_part_has_source_override_and_every_option(part):
    page = part.describe()
    assert part.paper in page
    assert part.override() in page
    assert f"  cfg.model.roi_heads.{part.node}._target_ = maskrcnn_ext.{part.name}\n" in page
    table = page[page.index("option ") :].partition("\n\n")[0]
    options = [name for name in inspect.signature(part.load().__init__).parameters if name not in ("self", "stock")]
    assert all(f"\n{name} " in table for name in options)
    if issubclass(part.load(), MaskHead):
        for option in part.load().own_defaults():
            assert f"{option}:" in page


@pytest.mark.parametrize("net", NETWORKS, ids=lambda net: net.name)
def test_the_override_of_a_network_is_valid(net):
    cfg = apply_overrides(get_config("mask_rcnn_r50_fpn_1x"), net.override().split())
    assert cfg.model.backbone.bottom_up.name == net.name
    assert net.override() in net.describe()
    assert "drop_path_rate:" in net.describe()


def test_a_network_is_found_without_its_tag():
    assert find_part("convnext_tiny") is find_part("convnext_tiny.fb_in1k")


def test_the_list_needs_no_torch(run_python):
    code = "import sys; from maskrcnn_ext.cli import main; code = main(['parts']); sys.exit(code or 'torch' in sys.modules)"
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr
    for name in ("DCTMaskHead", "FastROIPooler", "convnext_tiny.fb_in1k"):
        assert name in done.stdout


def test_find_part():
    assert find_part("DCTMaskHead").load() is maskrcnn_ext.DCTMaskHead
    with pytest.raises(InputError, match="did you mean BoundaryMaskHead"):
        find_part("BoundryMaskHead")
    with pytest.raises(InputError, match="maskrcnn-ext parts"):
        find_part("zzz")
