"""Windows of Swin Transformers on maps that they do not divide."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.models.swin_transformer import SwinTransformerBlock

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.modeling.backbones.swin_windows import DetectionBlock, shift_mask, use_detection_windows
from maskrcnn_ext.modeling.backbones.timm_backbone import TimmBackbone
from tests.helpers.mmdet_backbones import Swin


@pytest.mark.parametrize("size", [(9, 13), (7, 7), (2, 20)])
@pytest.mark.parametrize("is_shifted", [False, True])
@torch.no_grad()
def test_block_attends_within_padded_windows(size, is_shifted):
    torch.manual_seed(0)
    block = SwinTransformerBlock(32, (56, 56), num_heads=2, window_size=7)
    torch.nn.init.normal_(block.attn.relative_position_bias_table)
    reference = Swin(depths=(0, 0, 0, 0))
    x = torch.randn(2, *size, 32)
    own = DetectionBlock(block, is_shifted=is_shifted)
    expected = x + reference.attend(own.attn, own.norm1(x), 3 if is_shifted else 0)
    expected = expected + own.mlp(own.norm2(expected))
    torch.testing.assert_close(own(x), expected, atol=1e-5, rtol=1e-4)


def test_mask_separates_pixels_that_the_shift_joined():
    mask = shift_mask((4, 4), (2, 2), (1, 1), like=torch.zeros(1))
    assert mask.shape == (4, 4, 4)
    assert not mask[0].any()  # a window inside the image
    assert (mask[3] == -100).sum() == 12  # the corner: four pixels from four sides of the image


def test_other_networks_stay():
    net = timm.create_model("convnext_atto")
    before = [type(module) for module in net.modules()]
    use_detection_windows(net)
    assert [type(module) for module in net.modules()] == before


def test_frozen_swin_stays_frozen_and_out_norms_are_trained():
    net = TimmBackbone("swin_tiny_patch4_window7_224", pretrained=False, freeze_at=2, out_norms=True).train()
    blocks = net.net.layers
    assert not any(parameter.requires_grad for parameter in blocks[0].parameters())
    assert all(parameter.requires_grad for parameter in [*blocks[1].parameters(), *net.out_norms.parameters()])
    assert not blocks[0].blocks[1].training
    (sum(value.sum() for value in net(50 * torch.randn(1, 3, 64, 64)).values())).backward()
    assert net.out_norms["res5"].bias.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["resnet18", "deit_tiny_patch16_224"])
def test_out_norms_need_a_hierarchical_network_with_layer_norms(name):
    with pytest.raises(InputError, match="out_norms"):
        TimmBackbone(name, pretrained=False, out_norms=True)


@torch.no_grad()
def test_exported_block_takes_maps_of_other_sizes(tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    block = DetectionBlock(SwinTransformerBlock(8, (56, 56), num_heads=2, window_size=4), is_shifted=True).eval()
    axes = {"x": {1: "height", 2: "width"}}
    file = str(tmp_path / "block.onnx")
    torch.onnx.export(block, (torch.randn(1, 6, 9, 8),), file, input_names=["x"], dynamic_axes=axes, dynamo=False)
    session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
    x = torch.randn(1, 7, 10, 8)
    (found,) = session.run(None, {"x": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), block(x), atol=1e-5, rtol=1e-4)
