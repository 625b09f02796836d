"""Saving memory or time keeps losses, gradients, statistics and names."""

import copy

import pytest
import torch
from detectron2.config import instantiate
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from torch.autograd.graph import saved_tensors_hooks

import maskrcnn_ext
from maskrcnn_ext import InputError
from maskrcnn_ext.engine.acceleration import amp_dtype, checkpoint_activations, compile_backbone, enable_winograd
from maskrcnn_ext.ops import winograd
from maskrcnn_ext.ops.native import loads


def build(name="domains/shapes.py"):
    torch.manual_seed(0)
    cfg = maskrcnn_ext.get_config(name).model
    cfg.backbone.out_channels = 32
    return instantiate(cfg)


def batch():
    generator = torch.Generator().manual_seed(1)
    images = []
    for _ in range(2):
        truth = Instances((96, 96))
        truth.gt_boxes = Boxes(torch.tensor([[8.0, 8, 60, 60], [30, 40, 90, 80]]))
        truth.gt_classes = torch.tensor([0, 3])
        masks = torch.zeros(2, 96, 96, dtype=torch.bool)
        masks[0, 8:60, 8:60] = masks[1, 40:80, 30:90] = True
        truth.gt_masks = BitMasks(masks)
        pixels = (torch.rand(3, 96, 96, generator=generator) * 255).to(torch.uint8)
        images.append({"image": pixels, "instances": truth, "height": 96, "width": 96})
    return images


def step(model):
    """Returns losses, gradients, buffers after a step, and the bytes kept by the forward pass for the backward pass."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(2)
    with EventStorage():
        with saved_tensors_hooks(pack, lambda tensor: tensor):
            losses = model(batch())
        bytes_kept = sum(kept.values())
        sum(losses.values()).backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    return {k: v.item() for k, v in losses.items()}, gradients, dict(model.named_buffers()), bytes_kept


def test_checkpointed_activations_change_nothing_but_the_memory(capsys):
    plain = build()
    small = copy.deepcopy(plain)
    checkpoint_activations(small, ["backbone", "box_head", "mask_head"])
    assert list(small.state_dict()) == list(plain.state_dict())
    losses, gradients, buffers, kept = step(plain)
    found = step(small)
    assert found[0] == losses
    assert len(found[1]) == len(gradients)
    for a, b in zip(gradients, found[1], strict=True):
        torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-7)
    for (_, a), (_, b) in zip(buffers.items(), found[2].items(), strict=True):
        assert torch.equal(a, b), "statistics count once"
    with capsys.disabled():
        print(f"\nkept for the backward pass: {kept / 2**20:.1f} MiB, checkpointed {found[3] / 2**20:.1f} MiB")
    assert found[3] < 0.5 * kept


def test_a_cascades_box_heads_are_checkpointed_each():
    model = build("cascade_mask_rcnn_r18_fpn_scratch.py")
    names = list(model.state_dict())
    checkpoint_activations(model, ["box_head"])
    assert list(model.state_dict()) == names
    assert len([name for name, _ in model.named_modules() if name.endswith("_checkpoint_wrapped_module")]) == 3


def test_an_unknown_part_is_named():
    with pytest.raises(InputError, match=r"the model has no 'keypoint_head' \(it has backbone, box_head, mask_head"):
        checkpoint_activations(build(), ["keypoint_head"])
    with pytest.raises(InputError, match="has no 'neck'"):
        checkpoint_activations(build(), ["neck"])


def test_the_order_of_memory_changes_no_loss():
    plain = build()
    other = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    assert step(other)[0] == pytest.approx(step(plain)[0], rel=5e-3), "other sums, other samples at a tie"


@pytest.mark.skipif(not loads(winograd.library), reason="built without a compiler")
def test_winograds_convolutions_change_no_loss_and_no_name():
    plain = build()
    other = copy.deepcopy(plain)
    assert enable_winograd(other, compiled=False) >= 8
    other = copy.deepcopy(other)  # as for the average of the weights
    assert list(other.state_dict()) == list(plain.state_dict())
    found, expected = step(other), step(plain)
    assert found[0] == pytest.approx(expected[0], rel=5e-3), "other sums, other samples at a tie"
    norms = [torch.stack([gradient.norm() for gradient in gradients]).norm() for gradients in (found[1], expected[1])]
    assert norms[0].item() == pytest.approx(norms[1].item(), rel=2e-2)


def test_winograds_convolutions_are_not_compiled():
    with pytest.raises(InputError, match=r"train.winograd and train.compile exclude each other"):
        enable_winograd(build(), compiled=True)


@pytest.mark.slow
def test_a_compiled_backbone_gives_the_same_losses_under_the_same_names():
    plain = build()
    compiled = copy.deepcopy(plain)
    compile_backbone(compiled)
    assert list(compiled.state_dict()) == list(plain.state_dict())
    assert step(compiled)[0] == pytest.approx(step(plain)[0], rel=5e-3), "other sums, other samples at a tie"


@pytest.mark.parametrize(
    ("name", "device", "expected"),
    [
        (None, "cuda", torch.float16),
        (None, "cpu", torch.bfloat16),
        ("bf16", "cuda:1", torch.bfloat16),
        ("fp16", "cpu", torch.float16),
    ],
)
def test_precision(name, device, expected):
    assert amp_dtype(name, device) == expected
