"""What all mask heads have in common: options, autocast, weights of losses, and errors for input that does not fit."""

import pytest
import torch
from detectron2.utils.events import EventStorage
from omegaconf import OmegaConf

from maskrcnn_ext import InputError
from maskrcnn_ext.modeling.parts import MASK_HEADS
from maskrcnn_ext.ops.unlabelled import IgnoreRegion, Unlabelled
from tests.helpers.mask_heads import build, detections, features, truth


@pytest.mark.parametrize("part", MASK_HEADS, ids=lambda part: part.name)
def test_cls_agnostic_mask_has_one_channel_as_in_the_stock_head(part):
    head = build(part.name, num_classes=1)
    with EventStorage():
        losses = head(features(part.name), truth())
    sum(losses.values()).backward()
    head.eval()
    with torch.no_grad():
        assert [len(image.pred_masks) for image in head(features(part.name), detections())] == [3, 2]


@pytest.mark.parametrize("part", MASK_HEADS, ids=lambda part: part.name)
def test_an_unknown_keyword_is_an_error(part):
    with pytest.raises(TypeError, match="mask_losss"):
        build(part.name, mask_losss="dice")


@pytest.mark.parametrize("part", MASK_HEADS, ids=lambda part: part.name)
def test_lists_of_omegaconf_are_accepted(part):
    listed = OmegaConf.create({"conv_dims": [16, 16]})
    assert build(part.name, conv_dims=listed.conv_dims).state_dict().keys() == build(part.name).state_dict().keys()


@pytest.mark.parametrize("part", MASK_HEADS, ids=lambda part: part.name)
def test_bfloat16_autocast(part):
    head = build(part.name)
    with EventStorage(), torch.autocast("cpu", torch.bfloat16):
        losses = head(features(part.name), truth())
    sum(losses.values()).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in head.parameters())
    head.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for image in head(features(part.name), detections()):
            assert torch.isfinite(image.pred_masks.float()).all()


@pytest.mark.parametrize("part", MASK_HEADS, ids=lambda part: part.name)
def test_loss_weight_multiplies_every_loss(part):
    values = []
    for weight in (1.0, 3.0):
        head = build(part.name, loss_weight=weight)
        torch.manual_seed(5)
        with EventStorage():
            values.append(head(features(part.name), truth()))
    for name, loss in values[0].items():
        assert values[1][name].item() == pytest.approx(3 * loss.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "x", "message"),
    [
        (
            "PointRendMaskHead",
            torch.rand(5, 16, 14, 14),
            r"PointRendMaskHead takes the feature maps .*set model.roi_heads.mask_pooler=null",
        ),
        (
            "DCTMaskHead",
            {"p2": torch.rand(2, 16, 16, 16)},
            "DCTMaskHead takes pooled features .*set model.roi_heads.mask_pooler",
        ),
        (
            "FCNMaskHead",
            torch.rand(5, 32, 14, 14),
            "FCNMaskHead was built for 16 channels and the pooler returns 32: set .*input_shape.channels=32",
        ),
        (
            "MLPMaskHead",
            torch.rand(5, 16, 28, 28),
            "MLPMaskHead was built for RoI features of 14 x 14 and the pooler returns 28 x 28: set .*output_size=14, or",
        ),
        (
            "MaskScoringHead",
            torch.rand(5, 16, 28, 28),
            "MaskScoringHead was built for RoI features of 14 x 14 and the pooler returns 28 x 28",
        ),
        (
            "RefineMaskHead",
            {"res5": torch.rand(2, 16, 4, 4)},
            r"was passed res5: set model.roi_heads.mask_head.strides=\[\?\], with the strides in pixels",
        ),
        (
            "BoundaryMaskHead",
            {f"p{level}": torch.rand(2, 16, 4, 4) for level in (3, 4, 5)},
            r"strides \[4, 8, 16, 32\] and was passed p3, p4, p5: set model.roi_heads.mask_head.strides=\[8,16,32\]$",
        ),
        (
            "PatchDCTMaskHead",
            {f"p{level}": torch.rand(2, 8, 4, 4) for level in (2, 3, 4, 5)},
            r"built for 16 channels and the feature maps have \[8\]: set .*input_shape.channels=8",
        ),
    ],
)
def test_unsuitable_inputs_raise_one_line_with_the_override(name, x, message):
    with pytest.raises(InputError, match=message) as caught:
        build(name)(x, detections())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "part", [part for part in MASK_HEADS if part.name != "MaskScoringHead"], ids=lambda part: part.name
)
def test_masks_in_an_ignore_region_have_no_influence(part):
    """No ground truth of pixels in a region changes losses or gradients, except in a rim of one grid cell.

    The target of MaskScoringHead's IoU is the whole mask, of which the mapper leaves nothing in a region.
    """
    results = []
    for filled in (False, True):
        instances = truth()
        mask = torch.zeros(64, 64, dtype=torch.bool)
        mask[:, 20:] = True
        for image in instances[:1]:
            image.gt_masks.tensor[:, :, 32:] = filled
            image.gt_unlabelled = Unlabelled(len(image), IgnoreRegion(mask), None)
        head = build(part.name)
        torch.manual_seed(5)
        with EventStorage():
            losses = head(features(part.name), instances)
        sum(losses.values()).backward()
        results.append(({name: loss.item() for name, loss in losses.items()}, [p.grad for p in head.parameters()]))
    (losses, gradients), (other_losses, other_gradients) = results
    assert losses == pytest.approx(other_losses, rel=1e-5)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(gradients, other_gradients, strict=True))


def step(name, instances, x):
    head = build(name)
    torch.manual_seed(5)
    with EventStorage():
        losses = head(x, instances)
    sum(losses.values()).backward()
    return losses, [parameter.grad for parameter in head.parameters()]


@pytest.mark.parametrize("part", MASK_HEADS, ids=lambda part: part.name)
def test_objects_without_mask_are_skipped(part):
    """A batch with them has the losses and gradients of the batch without them; without any mask, the losses are 0."""
    mixed, x = truth(), features(part.name)
    mixed[0].gt_has_mask = torch.tensor([True, False, True])
    rows = torch.tensor([True, False, True, True, True])
    expected = step(part.name, [mixed[0][rows[:3]], mixed[1]], x if isinstance(x, dict) else x[rows])
    losses, gradients = step(part.name, mixed, x)
    assert {name: loss.item() for name, loss in losses.items()} == {
        name: loss.item() for name, loss in expected[0].items()
    }
    assert all(torch.equal(one, other) for one, other in zip(gradients, expected[1], strict=True))
    for image in mixed:
        image.gt_has_mask = torch.zeros(len(image), dtype=torch.bool)
    losses, gradients = step(part.name, mixed, x)
    assert all(loss.item() == 0 for name, loss in losses.items() if name != "loss_semantic")
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients)
