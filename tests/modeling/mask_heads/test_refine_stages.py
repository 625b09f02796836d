"""The stages of RefineMask: sizes, channels, and what reaches their outputs. Their values: test_full_refine_mask.py."""

import pytest
import torch

from maskrcnn_ext.modeling.mask_heads.refine_stages import FullSemanticFusion, SemanticFusion, SimpleSemanticFusion


@pytest.mark.parametrize(
    ("stage", "semantic", "shape"),
    [
        (SemanticFusion(16, 4, 8), 5, (2, 8, 28, 28)),
        (FullSemanticFusion(16, 8), 17, (2, 8, 28, 28)),
        (SimpleSemanticFusion(16, 8), 16, (2, 8, 28, 28)),
        (SimpleSemanticFusion(16, 8, enlarge=False), 16, (2, 8, 14, 14)),
    ],
    ids=["light", "full", "simple", "simple, last"],
)
def test_sizes_and_no_rois(stage, semantic, shape):
    inputs = [torch.rand(2, channels, 14, 14) for channels in (16, semantic, 1)]
    assert stage(*inputs).shape == shape
    assert stage(*[x[:0] for x in inputs]).shape == (0, *shape[1:])


def test_the_masks_are_the_last_channels_of_a_full_stage():
    features, semantic, mask = (torch.rand(2, channels, 14, 14) for channels in (16, 17, 1))
    found = FullSemanticFusion(16, 8)(features, semantic, mask)[:, -2:]
    for given, enlarged in ((mask[:, 0], found[:, 0]), (semantic[:, -1], found[:, 1])):
        torch.testing.assert_close(
            enlarged[:, [0, 0, -1, -1], [0, -1, 0, -1]], given[:, [0, 0, -1, -1], [0, -1, 0, -1]]
        )


def test_the_mean_of_a_simple_stage_reaches_every_pixel():
    stage = SimpleSemanticFusion(16, 9)
    features, semantic, mask = (torch.rand(1, channels, 32, 32) for channels in (16, 16, 1))
    far = features.clone()
    far[:, :, :2, :2] += 50  # beyond the reach of the convolutions from the opposite corner
    change = (stage(far, semantic, mask) - stage(features, semantic, mask))[:, :, -2:, -2:]
    assert change.any()


def test_gradients_in_bf16_of_channels_last_maps_are_those_of_float32():
    """PyTorch's own are wrong for the dilated branches, by several times their size."""
    torch.manual_seed(0)
    stage = SemanticFusion(8, 8, 8).to(memory_format=torch.channels_last)
    maps = [torch.randn(24, channels, 56, 56).contiguous(memory_format=torch.channels_last) for channels in (8, 9, 1)]
    gradients = []
    for enabled in (False, True):
        stage.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            output = stage(*maps)
        output.float().sum().backward()
        gradients.append([branch.weight.grad.clone() for branch in stage.branches])
    for expected, found in zip(*gradients, strict=True):
        assert (found - expected).abs().max() < 0.05 * expected.abs().max()
