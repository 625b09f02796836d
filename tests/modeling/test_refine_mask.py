"""RefineMask's head: the boundary region, the losses and targets against references, and that it learns."""

import cv2
import numpy as np
import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage
from torch.nn import functional as F

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.modeling.mask_heads.layers import predictor
from maskrcnn_ext.modeling.mask_heads.refine_mask import (
    RefineMaskHead,
    boundary_aware_loss,
    select_class_logits,
    trained_region,
)
from maskrcnn_ext.modeling.mask_heads.semantic_branch import semantic_loss, semantic_target
from maskrcnn_ext.ops.boundary import boundary_region, double_region, merge_at_boundary

SIZE, CHANNELS, CLASSES = 64, 16, 3


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def blobs(count, size):
    """(count, size, size) boolean masks: smooth noise, cut in half."""
    noise = F.interpolate(torch.randn(count, 1, 5, 5), size=(size, size), mode="bicubic")[:, 0]
    return noise > noise.flatten(1).median(1).values[:, None, None]


def make_head(*, dims=(CHANNELS, CHANNELS), num_classes=CLASSES, **options):
    shape = ShapeSpec(channels=CHANNELS, height=14, width=14)
    return RefineMaskHead(shape, num_classes=num_classes, conv_dims=list(dims), **options)


def pyramid(levels=(2, 3, 4, 5), images=2):
    return {f"p{level}": torch.rand(images, CHANNELS, SIZE >> level, SIZE >> level) for level in levels}


def boxes(count):
    corner = torch.rand(count, 2) * 20
    return torch.cat([corner, corner + 16 + torch.rand(count, 2) * 20], dim=1)


def proposals(counts, classes=CLASSES):
    result = []
    for count in counts:
        image = Instances((SIZE, SIZE))
        image.proposal_boxes = image.gt_boxes = Boxes(boxes(count))
        image.gt_classes = torch.randint(0, classes, (count,))
        image.gt_masks = BitMasks(blobs(count, SIZE))
        result.append(image)
    return result


def detections(counts, classes=CLASSES):
    result = []
    for count in counts:
        image = Instances((SIZE, SIZE))
        image.pred_boxes = Boxes(boxes(count))
        image.pred_classes = torch.randint(0, classes, (count,))
        image.scores = torch.rand(count)
        result.append(image)
    return result


def train_step(head, features, instances):
    head.train()
    with EventStorage() as storage:
        losses = head(features, instances)
    head.zero_grad()
    sum(losses.values()).backward()
    return losses, storage.latest()


def region_by_cv2(masks, width):
    kernel = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    masks = masks.numpy().astype(np.uint8)
    return np.stack([cv2.dilate(mask, kernel) != cv2.erode(mask, kernel) for mask in masks])


@pytest.mark.parametrize("width", [1, 2, 3])
def test_boundary_region_is_the_morphological_gradient(width):
    masks = torch.cat(
        [blobs(4, 28), torch.rand(2, 28, 28) > 0.95, torch.ones(1, 28, 28) > 0, torch.zeros(1, 28, 28) > 0]
    )
    region = boundary_region(masks, width)
    assert region.dtype == torch.bool
    assert (region.numpy() == region_by_cv2(masks, width)).all()
    assert not region[-2:].any(), "the edge of the grid is no boundary"
    assert torch.equal(boundary_region(masks.float(), width), region)


def test_the_fine_mask_replaces_the_coarse_one_at_its_boundary_only():
    coarse = torch.where(blobs(5, 28), 1.0, -1.0) * torch.rand(5, 28, 28)
    fine = torch.full((5, 56, 56), 100.0)
    merged = merge_at_boundary(coarse, fine, 1)
    region = np.kron(region_by_cv2(coarse > 0, 1), np.ones((2, 2))).astype(bool)
    upsampled = F.interpolate(coarse[None], scale_factor=2, mode="bilinear")[0].numpy()
    assert region.any()
    assert not region.all()
    assert (merged.numpy()[region] == 100).all()
    assert (merged.numpy()[~region] == upsampled[~region]).all()


def test_trained_region_joins_prediction_and_target():
    predicted, target = torch.randn(3, 14, 14), blobs(3, 14)
    union = region_by_cv2(predicted > 0, 2) | region_by_cv2(target, 2)
    assert (trained_region(predicted, target).numpy() == np.kron(union, np.ones((2, 2))).astype(bool)).all()


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


def rectangle(x0, y0, x1, y1):
    return np.array([x0, y0, x1, y0, x1, y1, x0, y1], dtype=np.float64)


@pytest.mark.parametrize("kind", ["bits", "polygons"])
def test_semantic_target_is_the_union_on_the_small_grid(kind):
    rectangles = [(0, 0, 16, 8), (8, 4, 24, 20), (32, 20, 40, 28), (0, 0, 16, 8)]  # the first object twice
    image = Instances((30, 42))
    image.proposal_boxes = Boxes(torch.zeros(4, 4))
    if kind == "bits":
        masks = torch.zeros(4, 30, 42, dtype=torch.bool)
        for mask, (x0, y0, x1, y1) in zip(masks, rectangles, strict=True):
            mask[y0:y1, x0:x1] = True
        image.gt_masks = BitMasks(masks)
    else:
        image.gt_masks = PolygonMasks([[rectangle(*corners)] for corners in rectangles])
    nothing = Instances((32, 48))  # images without ground truth have no gt_masks
    nothing.proposal_boxes = Boxes(torch.zeros(0, 4))
    target = semantic_target([image, nothing], 16, 16, 4)  # padded to 64 x 64
    expected = torch.zeros(2, 16, 16)
    expected[0, 0:2, 0:4] = expected[0, 1:5, 2:6] = expected[0, 5:7, 8:10] = 1
    assert torch.equal(target, expected)


def test_an_object_is_drawn_once_however_many_proposals_it_has(monkeypatch):
    from maskrcnn_ext.modeling.mask_heads import semantic_branch

    drawn = []
    draw = semantic_branch.polygons_to_bitmask
    monkeypatch.setattr(
        semantic_branch,
        "polygons_to_bitmask",
        lambda polygons, *size: drawn.append(len(polygons)) or draw(polygons, *size),
    )
    image = Instances((SIZE, SIZE))
    image.gt_masks = PolygonMasks([[rectangle(0, 0, 16, 8)], [rectangle(8, 4, 24, 20)]])[torch.tensor([0, 1, 1, 0, 1])]
    image.proposal_boxes = Boxes(torch.zeros(5, 4))
    semantic_target([image], 16, 16, 4)
    assert drawn == [2]


def test_semantic_loss_is_binary_cross_entropy():
    logits, targets = torch.randn(2, 8, 8), (torch.rand(2, 8, 8) > 0.5).float()
    probs = 1 / (1 + np.exp(-logits.double().numpy()))
    expected = -np.where(targets.numpy() > 0, np.log(probs), np.log(1 - probs)).mean()
    assert semantic_loss(logits, targets).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("norm", ["", "BN"])
def test_a_step_reaches_every_parameter_and_tells_how_it_went(norm):
    head = make_head(conv_norm=norm)
    losses, scalars = train_step(head, pyramid(), proposals([3, 2]))
    assert set(losses) == {"loss_mask", "loss_semantic"}
    # Near-zero logits: every stage is ln 2 times its weight.
    assert losses["loss_mask"].item() == pytest.approx(2.5 * np.log(2), rel=0.01)
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


def test_stages_learn_where_they_are_drawn():
    """Outside of the boundary regions the two finer stages have no loss, and inside they have."""
    head = make_head()
    targets = torch.zeros(1, 112, 112, dtype=torch.bool)
    targets[:, 32:80, 32:80] = True
    coarse = [torch.where(F.adaptive_max_pool2d(targets.float(), s) > 0, 9.0, -9.0) for s in (14, 28, 56, 112)]
    fine = [logits.clone().requires_grad_() for logits in coarse]
    with EventStorage():
        head.stage_losses(fine, coarse, targets).backward()
    for logits, reach in zip(fine[2:], (4, 4), strict=True):  # two pixels of the coarser mask
        factor = 112 // logits.shape[-1]
        low, high = 32 // factor, 80 // factor
        assert (logits.grad != 0).sum() == (high - low + 2 * reach) ** 2 - (high - low - 2 * reach) ** 2
    assert all((logits.grad != 0).all() for logits in fine[:2])


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


def test_it_learns():
    head = make_head(num_classes=2)
    features, instances = {name: level.normal_() for name, level in pyramid().items()}, proposals([3, 3], classes=2)
    for image in instances:  # an object to a RoI
        for mask, box in zip(image.gt_masks.tensor, image.proposal_boxes.tensor.round().int().tolist(), strict=True):
            mask[:] = False
            mask[box[1] : box[3], box[0] : box[2]] = blobs(1, SIZE)[0, : box[3] - box[1], : box[2] - box[0]]
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    history = []
    for _ in range(100):
        losses, _ = train_step(head, features, instances)
        optimizer.step()
        history.append(sum(losses.values()).item())
    assert history[-1] < history[0] / 3
    classes = torch.cat([image.gt_classes for image in instances])
    with torch.no_grad():
        # In training mode, as the head that scores masks calls it.
        probs = head.probs(head.predict(features, [image.proposal_boxes for image in instances]), classes)[:, 0]
    targets = torch.cat([i.gt_masks.crop_and_resize(i.proposal_boxes.tensor, 112) for i in instances])
    iou = ((probs > 0.5) & targets).sum((1, 2)) / ((probs > 0.5) | targets).sum((1, 2))
    assert iou.mean() > 0.8
