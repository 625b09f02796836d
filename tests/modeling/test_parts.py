"""The catalogue of parts lists every part, and the overrides it prints work."""

import pytest
from detectron2.config import LazyConfig, instantiate

import maskrcnn_ext
from maskrcnn_ext import InputError, get_config
from maskrcnn_ext.modeling.mask_heads.base import MaskHead
from maskrcnn_ext.modeling.parts import MASK_HEADS, POOLERS, find_part

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


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_the_page_of_a_part_has_source_override_and_every_option(part):
    page = part.describe()
    assert part.paper in page
    assert part.override() in page
    if issubclass(part.load(), MaskHead):
        for option in part.load().own_defaults():
            assert f"{option}:" in page


def test_find_part():
    assert find_part("DCTMaskHead").load() is maskrcnn_ext.DCTMaskHead
    with pytest.raises(InputError, match="did you mean BoundaryMaskHead"):
        find_part("BoundryMaskHead")
    with pytest.raises(InputError, match="maskrcnn-ext parts"):
        find_part("zzz")
