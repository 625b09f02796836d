"""FullRefineMaskHead and SimpleRefineMaskHead: outputs and losses against a reference in float64, empty images, and learning."""

import numpy as np
import pytest
import torch
from detectron2.modeling.poolers import ROIPooler
from torch.nn import functional as F
from torchvision.ops import roi_align

from maskrcnn_ext.modeling.mask_heads.full_refine_mask import FullRefineMaskHead, SimpleRefineMaskHead
from tests.helpers.refine_mask import (
    CHANNELS,
    cross_entropy,
    detections,
    doubled,
    make_head,
    proposals,
    pyramid,
    reference_losses,
    train_step,
)

FORMS = [FullRefineMaskHead, SimpleRefineMaskHead]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class Reference:
    """The forward pass of the authors' code in float64, from the parameters of a head alone."""

    def __init__(self, head):
        self.weights = {name: value.double() for name, value in head.state_dict().items()}

    def conv(self, x, name, *, dilation=1, relu=True):
        weight = self.weights[f"{name}.weight"]
        y = F.conv2d(
            x, weight, self.weights[f"{name}.bias"], padding=dilation * (weight.shape[-1] // 2), dilation=dilation
        )
        return y.relu() if relu else y

    def convs(self, x, name, count):
        for layer in range(count):
            x = self.conv(x, f"{name}.{layer}")
        return x

    def branches(self, x, name):
        return sum(self.conv(x, f"{name}.branches.{i}", dilation=dilation) for i, dilation in enumerate((1, 3, 5)))

    def class_logits(self, x, stage, classes):
        logits = self.conv(x, f"predictors.{stage}", relu=False)
        return logits[torch.arange(len(x)), classes if logits.shape[1] > 1 else torch.zeros_like(classes)][:, None]

    def features(self, features, boxes):
        x = ROIPooler(14, [1 / 4, 1 / 8, 1 / 16, 1 / 32], 0, "ROIAlignV2")(list(features.values()), boxes)
        return self.convs(x.double(), "mask_fcn", 2)

    def full(self, features, boxes, classes):
        """Four logits (R, S, S), and the semantic logits (N, H, W)."""
        x, rois = self.features(features, boxes), [image.tensor.double() for image in boxes]
        semantic = self.convs(features["p2"].double(), "semantic_branch.convs", 4)
        semantic_logits = self.conv(semantic, "semantic_branch.predictor", relu=False)
        found = []
        for stage, size in enumerate((14, 28, 56)):
            level = self.conv(semantic, f"semantic_branch.reductions.{stage}")
            pooled = roi_align(level, rois, size, 1 / 4, 0, aligned=True)
            pooled = self.conv(pooled, f"stages.{stage}.semantic")
            found.append(self.class_logits(x, stage, classes))
            mask, semantic_mask = (
                found[-1].sigmoid(),
                roi_align(semantic_logits.sigmoid(), rois, size, 1 / 4, 0, aligned=True),
            )
            x = self.conv(torch.cat([x, pooled, mask, semantic_mask], dim=1), f"stages.{stage}.reduce")
            x = self.conv(self.branches(x, f"stages.{stage}"), f"stages.{stage}.merge")
            x = F.interpolate(self.conv(x, f"stages.{stage}.shrink"), scale_factor=2, mode="bilinear")
            masks = [torch.as_tensor(doubled(m[:, 0]))[:, None] for m in (mask, semantic_mask)]
            x = torch.cat([x, *masks], dim=1)
        found.append(self.class_logits(x, 3, classes))
        return [logits[:, 0] for logits in found], semantic_logits[:, 0]

    def simple(self, features, boxes, classes):
        """Four logits (R, S, S)."""
        x, rois = self.features(features, boxes), [image.tensor.double() for image in boxes]
        semantic = self.convs(features["p2"].double(), "semantic_convs", 4)
        found = []
        for stage, size in enumerate((14, 28, 56)):
            pooled = roi_align(self.conv(semantic, f"reductions.{stage}"), rois, size, 1 / 4, 1, aligned=True)
            found.append(self.class_logits(x, stage, classes))
            mask = found[-1].sigmoid()
            x = self.conv(torch.cat([x, pooled, mask], dim=1), f"stages.{stage}.reduce")
            x = self.branches(x, f"stages.{stage}") + F.adaptive_avg_pool2d(x, 1)
            x = self.conv(self.conv(x, f"stages.{stage}.merge"), f"stages.{stage}.shrink")
            x = torch.cat([x, mask], dim=1)
            if stage < 2:
                x = F.interpolate(x, scale_factor=2, mode="bilinear")
        found.append(torch.as_tensor(doubled(self.class_logits(x, 3, classes)[:, 0]))[:, None])
        return [logits[:, 0] for logits in found]


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_outputs_and_losses_equal_the_reference(form):
    head, features, instances = make_head(form=form), pyramid(), proposals([3, 2])
    torch.nn.init.normal_(head.mask_fcn[0].bias)
    classes, boxes = torch.cat([i.gt_classes for i in instances]), [i.proposal_boxes for i in instances]
    losses = head_losses(head, features, instances)
    prediction = head.predict(features, boxes)
    found, merged = head.refine(prediction, classes)
    semantic_logits = None
    if form is FullRefineMaskHead:
        expected, semantic_logits = Reference(head).full(features, boxes, classes)
        weights = (0.25, 0.5, 0.75, 1.0)
    else:
        expected, weights = Reference(head).simple(features, boxes, classes), (0.5, 0.75, 0.75, 1.0)
    for mine, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(mine.double(), reference, rtol=1e-4, atol=1e-4)

    # The losses and the final mask from the head's own logits: rounding may change the sign of a logit at zero.
    arrays = [stage.double().numpy() for stage in found]
    targets = [
        torch.cat([i.gt_masks.crop_and_resize(i.proposal_boxes.tensor, size) for i in instances]).numpy()
        for size in (14, 28, 56, 112)
    ]
    stage_losses, final = reference_losses(arrays, targets)
    assert losses["loss_mask"].item() == pytest.approx(np.dot(weights, stage_losses), rel=1e-4)
    np.testing.assert_allclose(merged[-1].numpy(), final, atol=1e-4)
    assert ("loss_semantic" in losses) == (semantic_logits is not None)
    if semantic_logits is not None:
        union = torch.stack([image.gt_masks.tensor.any(0) for image in instances]).float()
        target = F.avg_pool2d(union, 4).numpy() >= 0.5
        expected_loss = cross_entropy(semantic_logits.numpy(), target).mean()
        assert losses["loss_semantic"].item() == pytest.approx(expected_loss, rel=1e-4)


def head_losses(head, features, instances):
    from detectron2.utils.events import EventStorage

    with EventStorage():
        return head(features, instances)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("counts", [[2, 1], [0, 2], [0, 0]])
def test_training_and_inference_with_any_number_of_objects(form, counts):
    head = make_head(form=form, conv_norm="BN")
    losses, _ = train_step(head, pyramid(), proposals(counts))
    assert all(torch.isfinite(loss) and loss.requires_grad for loss in losses.values())
    assert all(torch.isfinite(parameter.grad).all() for parameter in head.parameters())
    if sum(counts) == 3:
        # Channels that ReLU leaves empty have no gradient: most layers must have one.
        assert sum(bool(parameter.grad.any()) for parameter in head.parameters()) > 0.9 * len(list(head.parameters()))
    with torch.no_grad():
        images = head.eval()(pyramid(), detections(counts))
    assert [image.pred_masks.shape for image in images] == [(count, 1, 112, 112) for count in counts]


def test_the_widths_are_those_of_the_paper():
    shapes = {}
    for form in FORMS:
        with torch.device("meta"):
            shape = make_head().input_shape._replace(channels=256)
            head = form(shape, num_classes=80, conv_dims=[256] * 5)
        shapes[form] = {name: tuple(value.shape) for name, value in head.state_dict().items()}
    full, simple = (shapes[form] for form in FORMS)
    for stage, width in enumerate((256, 128, 64)):
        assert full[f"predictors.{stage}.weight"] == simple[f"predictors.{stage}.weight"] == (80, width, 1, 1)
        assert full[f"stages.{stage}.reduce.weight"] == (width, 2 * width + 2, 1, 1)
        assert simple[f"stages.{stage}.reduce.weight"] == (width, 2 * width + 1, 1, 1)
        assert full[f"stages.{stage}.shrink.weight"] == (width // 2 - 2, width, 1, 1)
        assert [full[f"stages.{stage}.branches.{i}.weight"] for i in range(3)] == [(width, width, 3, 3)] * 3
    assert full["predictors.3.weight"] == (80, 32, 1, 1)
    assert simple["predictors.3.weight"] == (1, 32, 1, 1)
    assert full["semantic_branch.convs.3.weight"] == simple["semantic_convs.3.weight"] == (256, 256, 3, 3)


@pytest.mark.parametrize(
    ("form", "options"),
    [
        (FullRefineMaskHead, {"last_class_agnostic": True, "merged_input": True}),
        (SimpleRefineMaskHead, {"enlarge_last_features": True, "last_class_agnostic": False}),
        (SimpleRefineMaskHead, {"num_classes": 1}),
        (FullRefineMaskHead, {"dims": [8]}),
    ],
)
def test_options(form, options):
    head = make_head(form=form, **options)
    losses, _ = train_step(head, pyramid(), proposals([2, 1]))
    assert all(torch.isfinite(loss) for loss in losses.values())
    with torch.no_grad():
        (image, _) = head.eval()(pyramid(), detections([2, 1]))
    assert image.pred_masks.shape == (2, 1, 112, 112)


def test_group_norm_and_autocast():
    features = {name: level.repeat(1, 16, 1, 1) for name, level in pyramid(images=1).items()}
    shape = make_head().input_shape._replace(channels=16 * CHANNELS)
    for form in FORMS:
        head = form(shape, num_classes=3, conv_dims=[256], conv_norm="GN")
        with torch.autocast("cpu", torch.bfloat16):
            losses, _ = train_step(head, features, proposals([1]))
        assert all(torch.isfinite(loss) for loss in losses.values())
