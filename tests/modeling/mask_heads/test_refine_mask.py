"""RefineMaskHead: losses and stages against references, empty images, tracing, and learning."""

import numpy as np
import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.utils.events import EventStorage

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.modeling.mask_heads.layers import predictor
from maskrcnn_ext.modeling.mask_heads.refine_mask import (
    RefineMaskHead,
    RefinePrediction,
    boundary_aware_loss,
    select_class_logits,
    trained_region,
)
from maskrcnn_ext.ops.boundary import boundary_region, double_region
from tests.helpers.refine_mask import (
    CHANNELS,
    SIZE,
    blobs,
    detections,
    doubled,
    make_head,
    near_boundary,
    proposals,
    pyramid,
    reference_losses,
    train_step,
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("width", [1, 2])
def test_trained_region_joins_prediction_and_target(width):
    predicted, target = torch.randn(3, 14, 14), blobs(3, 14)
    union = near_boundary(predicted >= 0, width) | near_boundary(target, width)
    np.testing.assert_array_equal(trained_region(predicted, target, width).numpy(), doubled(union) >= 0.5)


def test_boundary_aware_loss_is_the_mean_over_the_region():
    logits, targets = torch.randn(4, 28, 28), blobs(4, 28)
    region = double_region(boundary_region(blobs(4, 14), 1))
    probs = 1 / (1 + np.exp(-logits.double().numpy()))
    pixels = -np.where(targets.numpy(), np.log(probs), np.log(1 - probs))
    loss = boundary_aware_loss(logits, targets, region)
    assert loss.item() == pytest.approx(pixels[region.numpy()].mean(), rel=1e-5)
    assert boundary_aware_loss(logits, targets, torch.zeros_like(region)).item() == 0
    assert boundary_aware_loss(logits.bfloat16(), targets, region).dtype == torch.float32


@pytest.mark.parametrize("num_classes", [1, 5])
def test_select_class_logits_are_a_channel_of_the_convolution(num_classes):
    layer = predictor(8, num_classes)
    torch.nn.init.normal_(layer.bias)
    features, classes = torch.randn(6, 8, 7, 7), torch.randint(0, 5, (6,))
    full = layer(features)
    expected = torch.stack([full[i, c if num_classes > 1 else 0] for i, c in enumerate(classes.tolist())])
    torch.testing.assert_close(select_class_logits(layer, features, classes), expected)


def test_predictors_start_with_the_gain_of_their_channels():
    head = make_head(dims=(CHANNELS, 64), num_classes=80)
    for layer in head.predictors:
        assert layer.weight.std().item() == pytest.approx(layer.in_channels**-0.5, rel=0.2)
        assert not layer.bias.any()


@pytest.mark.parametrize("norm", ["", "BN"])
def test_a_step_gives_every_parameter_a_gradient_and_logs_metrics(norm):
    head = make_head(conv_norm=norm)
    losses, scalars = train_step(head, pyramid(), proposals([3, 2]))
    assert set(losses) == {"loss_mask", "loss_semantic"}
    # Small logits: every stage is about ln 2 times its weight.
    assert losses["loss_mask"].item() == pytest.approx(2.5 * np.log(2), rel=0.5)
    assert losses["loss_semantic"].item() == pytest.approx(np.log(2), rel=0.01)
    assert {"mask_rcnn/accuracy", "mask_rcnn/false_positive", "mask_rcnn/false_negative"} <= set(scalars)
    for name, parameter in head.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("counts", [[0, 3], [0, 0]])
def test_images_without_objects(counts):
    head = make_head(conv_norm="BN")
    losses, _ = train_step(head, pyramid(), proposals(counts))
    assert all(torch.isfinite(loss) and loss.requires_grad for loss in losses.values())
    assert all(torch.isfinite(parameter.grad).all() for parameter in head.parameters())
    assert all(torch.isfinite(value).all() for value in head.state_dict().values()), "running statistics"
    head.eval()
    with torch.no_grad():
        images = head(pyramid(), detections(counts))
    assert [image.pred_masks.shape for image in images] == [(count, 1, 112, 112) for count in counts]


@pytest.mark.parametrize(
    ("options", "features"),
    [
        ({"strides": [16]}, {"res5": torch.rand(2, CHANNELS, 4, 4)}),
        ({"dims": [CHANNELS]}, None),
        ({"semantic_dim": 24}, None),
        ({"mask_loss": "bce+dice"}, None),
    ],
    ids=lambda value: next(iter(value)) if value else "pyramid",
)
def test_other_shapes(options, features):
    head = make_head(**options)
    features = features or pyramid()
    losses, _ = train_step(head, features, proposals([2, 1]))
    assert all(torch.isfinite(loss) for loss in losses.values())
    with torch.no_grad():
        (image, _) = head.eval()(features, detections([2, 1]))
    assert image.pred_masks.shape == (2, 1, 112, 112)
    assert ((image.pred_masks >= 0) & (image.pred_masks <= 1)).all()


def test_class_agnostic_masks_of_any_class():
    head = make_head(num_classes=1)
    losses, _ = train_step(head, pyramid(), proposals([3, 2], classes=80))
    assert all(torch.isfinite(loss) for loss in losses.values())
    with torch.no_grad():
        (image, _) = head.eval()(pyramid(), detections([3, 2], classes=80))
    assert image.pred_masks.shape == (3, 1, 112, 112)


def test_outputs_and_losses_of_the_stages_equal_the_reference():
    """The losses of random masks and the merged mask, with the defaults and with other options."""
    targets = [blobs(4, size) for size in (14, 28, 56, 112)]
    logits = [torch.where(target, 1.0, -1.0) + torch.randn(target.shape) for target in targets]
    arrays = [stage.double().numpy() for stage in logits], [target.numpy() for target in targets]
    for options, weights in (
        ({}, (0.25, 0.5, 0.75, 1)),
        ({"stage_weights": [1, 2, 0, 3], "boundary_width": 3, "start_stage": 0}, (1, 2, 0, 3)),
    ):
        head = make_head(**options)
        # The stages return the given masks for any input.
        head.class_logits = lambda stage, *_: logits[stage]
        del head.stages
        head.stages = [lambda *_: None] * 3
        _, merged = head.refine(RefinePrediction(None, [None] * 3, None), None)
        with EventStorage():
            loss = head.stage_losses(logits, merged, targets, [None] * 4)
        losses, final = reference_losses(
            *arrays, width=options.get("boundary_width", 2), start=options.get("start_stage", 1)
        )
        assert loss.item() == pytest.approx(np.dot(weights, losses), rel=1e-5)
        np.testing.assert_allclose(merged[-1].numpy(), final, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stage_weights": [1, 1]}, "stage_weights="),
        ({"start_stage": 4}, "start_stage to 0, 1, 2 or 3"),
        ({"boundary_width": 0}, "boundary_width to 1 or more"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(InputError, match=message):
        make_head(**options)


def test_the_weights_of_the_losses():
    features, instances = pyramid(), proposals([3, 2])
    results = []
    for options in ({}, {"loss_weight": 3.0, "semantic_loss_weight": 2.0}):
        torch.manual_seed(0)
        results.append(train_step(make_head(**options), features, instances)[0])
    assert results[1]["loss_mask"].item() == pytest.approx(3 * results[0]["loss_mask"].item())
    assert results[1]["loss_semantic"].item() == pytest.approx(6 * results[0]["loss_semantic"].item())


def test_pooled_features_are_refused():
    with pytest.raises(InputError, match="mask_pooler=null"):
        make_head()(torch.rand(3, CHANNELS, 14, 14), detections([3]))
    with pytest.raises(InputError, match="no_such"):
        make_head(mask_loss="no_such")


def test_autocast():
    head = make_head()
    with torch.autocast("cpu", torch.bfloat16):
        losses, _ = train_step(head, pyramid(), proposals([3, 2]))
        with torch.no_grad():
            (image, _) = head.eval()(pyramid(), detections([3, 2]))
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert all(torch.isfinite(parameter.grad).all() for parameter in head.parameters())
    assert torch.isfinite(image.pred_masks).all()


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_tracing():
    from detectron2.export import TracingAdapter

    head = make_head().eval()
    for layer in head.predictors:  # masks that are not all alike
        torch.nn.init.normal_(layer.weight)
    features, instances = pyramid(images=1), detections([4])
    adapter = TracingAdapter(head, (features, instances), allow_non_tensor=True)
    adapter.eval()
    with torch.no_grad():
        traced = torch.jit.trace(adapter, adapter.flattened_inputs, check_trace=False)
        other_features, other = pyramid(images=1), detections([4])
        flat = TracingAdapter(head, (other_features, other), allow_non_tensor=True).flattened_inputs
        expected = head(other_features, other)[0].pred_masks
        outputs = adapter.outputs_schema(traced(*flat))
    torch.testing.assert_close(outputs[0].pred_masks, expected)


def test_loss_decreases():
    head = make_head(num_classes=2)
    features, instances = {name: level.normal_() for name, level in pyramid().items()}, proposals([3, 3], classes=2)
    for image in instances:  # an object to a RoI
        for mask, box in zip(image.gt_masks.tensor, image.proposal_boxes.tensor.round().int().tolist(), strict=True):
            mask[:] = False
            mask[box[1] : box[3], box[0] : box[2]] = blobs(1, SIZE)[0, : box[3] - box[1], : box[2] - box[0]]
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    history = []
    for _ in range(60):
        losses, _ = train_step(head, features, instances)
        optimizer.step()
        history.append(sum(losses.values()).item())
    assert history[-1] < history[0] / 2
    classes = torch.cat([image.gt_classes for image in instances])
    with torch.no_grad():
        # In training mode, as the head that scores masks calls it.
        probs = head.probs(head.predict(features, [image.proposal_boxes for image in instances]), classes)[:, 0]
    targets = torch.cat([i.gt_masks.crop_and_resize(i.proposal_boxes.tensor, 112) for i in instances])
    iou = ((probs > 0.5) & targets).sum((1, 2)) / ((probs > 0.5) | targets).sum((1, 2))
    assert iou.mean() > 0.8


def test_group_norm_of_narrow_layers():
    """Stages of 64 channels get narrower than the 32 groups of Detectron2's GroupNorm."""
    head = RefineMaskHead(
        ShapeSpec(channels=64, height=14, width=14), num_classes=2, conv_dims=[64] * 5, conv_norm="GN"
    )
    norms = [layer for layer in head.modules() if isinstance(layer, torch.nn.GroupNorm)]
    assert {layer.num_groups for layer in norms} > {32}
    assert all(layer.num_channels % layer.num_groups == 0 for layer in norms)
