"""GenericROIPooler: each fusion, and GRoIE, against a reference."""

import numpy as np
import pytest
import torch
from detectron2.modeling.poolers import ROIPooler
from torch.nn import functional as F

from maskrcnn_ext.modeling.poolers.generic import GenericROIPooler
from tests.helpers.groie_reference import groie
from tests.helpers.poolers import CHANNELS, GROIE, SCALES, boxes_of, build, pyramid


def pool_levels(**stock):
    """Every box pooled from every level by Detectron2, one level at a time."""
    levels = zip(SCALES, pyramid(), strict=True)
    return [build(ROIPooler, {}, [scale], **stock)([features], boxes_of(7, 2)) for scale, features in levels]


@pytest.mark.parametrize("pooler_type", ["ROIAlignV2", "ROIAlign", "ROIPool"])
@pytest.mark.parametrize("options", [{}, {"fuse": "max"}, {"fuse": "attention", "channels": CHANNELS}], ids=str)
def test_generic_of_one_level_is_the_stock_pooler(pooler_type, options):
    one_level = [pyramid()[1]]
    pooled = build(GenericROIPooler, options, SCALES[1:2], pooler_type=pooler_type)(one_level, boxes_of(7, 2))
    assert torch.equal(pooled, build(ROIPooler, {}, SCALES[1:2], pooler_type=pooler_type)(one_level, boxes_of(7, 2)))


@pytest.mark.parametrize(
    ("fuse", "expected"),
    [
        ("sum", lambda levels: levels.sum(0)),
        ("max", lambda levels: levels.amax(0)),
        ("attention", lambda levels: levels.mean(0)),
    ],
)
def test_generic_fuses_all_levels(fuse, expected):
    pooled = build(GenericROIPooler, {"fuse": fuse, "channels": CHANNELS})(pyramid(), boxes_of(7, 2))
    torch.testing.assert_close(pooled, expected(torch.stack(pool_levels())))


def test_generic_attention_learns_which_level_counts():
    module = build(GenericROIPooler, {"fuse": "attention", "channels": CHANNELS})
    with torch.no_grad():
        module.fuse.score.bias[2] = 100
    torch.testing.assert_close(module(pyramid(), boxes_of(7, 2)), pool_levels()[2])


def test_generic_concat_and_convolutions_see_the_levels_in_order():
    module = build(GenericROIPooler, {"fuse": "concat", "pre": "conv_per_level", "post": "conv", "channels": CHANNELS})
    prepared = [
        F.conv2d(pooled, conv[0].weight, conv[0].bias, padding=2).relu()
        for conv, pooled in zip(module.pre, pool_levels(), strict=True)
    ]
    fused = torch.einsum("oi,mihw->mohw", module.fuse.reduce.weight[:, :, 0, 0], torch.cat(prepared, dim=1))
    fused = fused + module.fuse.reduce.bias[:, None, None]
    expected = F.conv2d(fused, module.post[0].weight, module.post[0].bias, padding=2).relu()
    torch.testing.assert_close(module(pyramid(), boxes_of(7, 2)), expected)


def test_generic_non_local_starts_as_the_identity_and_relates_bins():
    module = build(GenericROIPooler, {"post": "non_local", "channels": CHANNELS})
    plain = build(GenericROIPooler, {})(pyramid(), boxes_of(7, 2))
    assert torch.equal(module(pyramid(), boxes_of(7, 2)), plain)

    torch.nn.init.normal_(module.post.out.weight)
    query, key, value = (
        torch.einsum("oi,mip->mop", weight[:, :, 0, 0], plain.flatten(2)) + bias[:, None]
        for weight, bias in zip(module.post.embed.weight.chunk(3), module.post.embed.bias.chunk(3), strict=True)
    )
    expected = torch.empty_like(plain.flatten(2))
    for at in range(9):
        affinity = torch.einsum("mo,mop->mp", query[:, :, at], key).softmax(1)
        answer = torch.einsum("mp,mop->mo", affinity, value)
        expected[:, :, at] = plain.flatten(2)[:, :, at] + answer @ module.post.out.weight[:, :, 0, 0].T
    torch.testing.assert_close(module(pyramid(), boxes_of(7, 2)).flatten(2), expected)


def test_generic_without_layers_takes_any_number_of_channels():
    module = build(GenericROIPooler, {})
    assert not list(module.parameters())
    assert module(pyramid(channels=3), boxes_of(2, 0)).shape == (2, 3, 3, 3)


def test_groie_equals_the_reference():
    module = build(GenericROIPooler, {**GROIE, "channels": 12}, output_size=4).double()
    features = pyramid(torch.float64, channels=12)
    levels = [
        build(ROIPooler, {}, [scale], output_size=4)([level], boxes_of(4, 2)).detach().numpy()
        for scale, level in zip(SCALES, features, strict=True)
    ]
    torch.nn.init.constant_(module.post.gamma, 0.7)
    weights = {key: value.detach().numpy() for key, value in module.state_dict().items()}
    found = module(features, boxes_of(4, 2)).detach().numpy()
    np.testing.assert_allclose(found, groie(levels, weights, num_heads=2), atol=1e-5)


def test_groie_has_its_authors_number_of_weights_and_starts_as_the_sum_of_the_convolved_levels():
    with torch.device("meta"):
        module = GenericROIPooler(14, SCALES, 2, "ROIAlignV2", pre="conv", post="attention")
    inner = 252  # six heads of 42
    attention = 2 * 256 * inner + 2 * 128 * inner + (inner + 1) * 256 + 1
    assert sum(p.numel() for p in module.parameters()) == 256 * 256 * 25 + 256 + attention
    options = {"pre": "conv", "num_heads": 2, "channels": CHANNELS}
    plain, full = (build(GenericROIPooler, {**options, "post": post}) for post in (None, "attention"))
    assert torch.equal(full(pyramid(), boxes_of(7, 2)), plain(pyramid(), boxes_of(7, 2)))
