"""GroupNorm with faster passes: the same numbers and names, and only where it applies."""

import pytest
import torch
from torch import nn

from maskrcnn_ext.modeling.fast_group_norm import FastGroupNorm, use_fast_group_norm
from maskrcnn_ext.ops import group_norm
from maskrcnn_ext.ops.native import loads

pytestmark = pytest.mark.skipif(not loads(group_norm.library), reason="no compiled library")


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.ReLU(), nn.GroupNorm(2, 16, affine=False)
    )


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_network_trains_alike(layout, bf16):
    plain, faster = (net().to(memory_format=layout) for _ in range(2))
    assert use_fast_group_norm(faster) == 1
    assert isinstance(faster[1], FastGroupNorm)
    assert list(faster.state_dict()) == list(plain.state_dict())
    x = torch.randn(2, 3, 10, 9).contiguous(memory_format=layout)
    results = []
    for model in (plain, faster):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            out = model(x)
        out.float().square().mean().backward()
        results.append([out.detach(), *(weight.grad for weight in model.parameters())])
    for expected, found in zip(*results, strict=True):
        assert found.dtype == expected.dtype
        assert found.stride() == expected.stride()
        torch.testing.assert_close(found, expected, atol=2e-2 if bf16 else 1e-5, rtol=0)
    if layout is torch.contiguous_format:
        assert torch.equal(results[0][0], results[1][0])


def test_other_inputs_are_computed_as_before():
    plain, faster = nn.GroupNorm(2, 4), nn.GroupNorm(2, 4)
    use_fast_group_norm(faster)
    vectors = torch.randn(3, 4)
    assert torch.equal(faster(vectors), plain(vectors))
    maps = torch.randn(1, 4, 5, 5, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    assert torch.equal(faster.double()(maps), plain.double()(maps))


def test_a_network_that_trained_exports(tmp_path):
    faster = net().to(memory_format=torch.channels_last)
    use_fast_group_norm(faster)
    x = torch.randn(2, 3, 10, 9).contiguous(memory_format=torch.channels_last)
    torch.jit.trace(faster, (x,)).save(tmp_path / "traced.pt")
    for exported in (torch.jit.load(tmp_path / "traced.pt"), torch.export.export(faster, (x,)).module()):
        torch.testing.assert_close(exported(x), faster(x))
