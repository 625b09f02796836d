"""The mask heads one by one: parity with the stock head, formulas, options, errors. The matrix runs them in whole models."""

import cv2
import numpy as np
import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import MaskRCNNConvUpsampleHead
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage
from omegaconf import OmegaConf

import maskrcnn_ext
from maskrcnn_ext import InputError
from maskrcnn_ext.modeling.mask_heads.ground_truth import log_accuracy
from maskrcnn_ext.modeling.mask_heads.mask_scoring import find_base, mask_iou
from maskrcnn_ext.modeling.mask_heads.patch_dct import patch_loss
from maskrcnn_ext.modeling.parts import MASK_HEADS
from maskrcnn_ext.ops.dct import DCTCodec, patch_kinds, to_patches

SHAPE = ShapeSpec(channels=16, height=14, width=14)
SMALL = {"num_classes": 3, "conv_dims": [16, 16]}
GRID_HEADS = ["FCNMaskHead", "MLPMaskHead", "BoundaryMaskHead", "PointRendMaskHead", "RefineMaskHead"]
PYRAMID = {part.name for part in MASK_HEADS if part.pyramid}


def build(name, **options):
    torch.manual_seed(0)
    if "PointRend" in name:
        options = {"fc_dim": 16, "point_fc_dim": 8, **options}
    return getattr(maskrcnn_ext, name)(SHAPE, **{**SMALL, **options})


def truth(counts=(3, 2), *, polygons=False):
    """Foreground proposals with ground truth, as RoI heads hand them to a mask head in training."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for count in counts:
        image = Instances((64, 64))
        corners = torch.rand(count, 2, generator=generator) * 20
        sizes = torch.rand(count, 2, generator=generator) * 20 + 18
        image.proposal_boxes = Boxes(torch.cat([corners, corners + sizes], dim=1))
        image.gt_boxes = image.proposal_boxes
        image.gt_classes = torch.randint(0, 3, (count,), generator=generator)
        inner = [(x0 + 3, y0 + 2, x1 - 4, y1 - 3) for x0, y0, x1, y1 in image.proposal_boxes.tensor.tolist()]
        outlines = [[[x0, y0, x1, y0, x1, y1, x0, y1]] for x0, y0, x1, y1 in inner]
        image.gt_masks = PolygonMasks(outlines) if polygons else BitMasks.from_polygon_masks(outlines, 64, 64)
        found.append(image)
    return found


def detections(counts=(3, 2)):
    found = []
    for image in truth(counts):
        detected = Instances((64, 64), pred_boxes=image.proposal_boxes, pred_classes=image.gt_classes)
        detected.scores = torch.linspace(0.9, 0.5, len(image))
        found.append(detected)
    return found


def features(name, count=5):
    torch.manual_seed(3)
    if name in PYRAMID:
        return {f"p{level}": torch.rand(2, 16, 64 // 2**level, 64 // 2**level) for level in range(2, 6)}
    return torch.rand(count, 16, 14, 14)


@pytest.mark.parametrize("num_classes", [3, 1])
def test_fcn_is_the_stock_head(num_classes):
    ours = build("FCNMaskHead", num_classes=num_classes)
    stock = MaskRCNNConvUpsampleHead(SHAPE, num_classes=num_classes, conv_dims=[16, 16])
    stock.load_state_dict(ours.state_dict())
    x = features("FCNMaskHead")
    with EventStorage() as one, EventStorage() as other:
        with one:
            found = ours(x, truth())
        with other:
            expected = stock(x, truth())
    assert found.keys() == expected.keys()
    torch.testing.assert_close(found["loss_mask"], expected["loss_mask"])
    assert {k: pytest.approx(v[0]) for k, v in one.latest().items()} == {k: v[0] for k, v in other.latest().items()}
    ours.eval(), stock.eval()
    for a, b in zip(ours(x, detections()), stock(x, detections()), strict=True):
        assert torch.equal(a.pred_masks, b.pred_masks)


@pytest.mark.parametrize("name", GRID_HEADS)
@pytest.mark.parametrize("mask_loss", ["dice", "focal", "lovasz", "boundary", "bce+dice"])
def test_the_mask_loss_is_one_option(name, mask_loss):
    x = features(name)
    with EventStorage():
        torch.manual_seed(0)
        stock = build(name)(x, truth())["loss_mask"]
        torch.manual_seed(0)
        loss = build(name, mask_loss=mask_loss)(x, truth())["loss_mask"]
    assert torch.isfinite(loss)
    assert loss != stock


@pytest.mark.parametrize("name", GRID_HEADS)
def test_a_wrong_mask_loss(name):
    with pytest.raises(InputError, match="'diec' is unknown: set one of bce, boundary, dice, focal, lovasz"):
        build(name, mask_loss="diec")


@pytest.mark.parametrize("part", MASK_HEADS, ids=lambda part: part.name)
def test_class_agnostic_masks_are_the_option_that_the_stock_head_has(part):
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
def test_lists_arrive_as_omegaconf_hands_them_over(part):
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
    "name", ["FCNMaskHead", "SoftmaxMaskHead", "DCTMaskHead", "PatchDCTMaskHead", "RefineMaskHead"]
)
def test_pictures_of_the_training_masks(name):
    head = build(name, vis_period=2)
    with EventStorage(start_iter=4) as storage:
        head(features(name), truth())
        assert len(storage._vis_data) == 5
    with EventStorage(start_iter=5) as storage:
        head(features(name), truth())
        assert not storage._vis_data


def test_accuracy_counts_false_positives_and_negatives_like_the_stock_loss():
    targets = torch.zeros(1, 4, 4, dtype=torch.bool)
    targets[0, :2] = True
    predicted = targets.clone()
    predicted[0, 0, :2] = False  # 2 of 8 missed
    predicted[0, 3, 0] = True  # 1 of 8 too many
    with EventStorage() as storage:
        log_accuracy(predicted, targets)
    latest = {name: value for name, (value, _) in storage.latest().items()}
    assert latest == {
        "mask_rcnn/accuracy": pytest.approx(13 / 16),
        "mask_rcnn/false_positive": pytest.approx(1 / 8),
        "mask_rcnn/false_negative": pytest.approx(2 / 8),
    }


@pytest.mark.parametrize("polygons", [False, True])
def test_softmax_loss_is_the_cross_entropy_of_class_and_background(polygons):
    head = build("SoftmaxMaskHead")
    head.fcn.predictor.weight.data.normal_()
    instances = truth(polygons=polygons)
    logits = head.predict(features("SoftmaxMaskHead"), [])
    with EventStorage():
        loss = head.losses(logits, instances)["loss_mask"]
    probs = logits.detach().double().softmax(1).numpy()
    classes = torch.cat([image.gt_classes for image in instances]).numpy()
    masks = torch.cat([i.gt_masks.crop_and_resize(i.proposal_boxes.tensor, 28) for i in instances]).numpy()
    expected = [
        -np.log(np.where(mask, p[label], p[3])).mean() for p, label, mask in zip(probs, classes, masks, strict=True)
    ]
    assert loss.item() == pytest.approx(np.mean(expected), rel=1e-5)
    chosen = head.probs(logits, torch.as_tensor(classes))[:, 0].detach().numpy()
    np.testing.assert_allclose(chosen, probs[np.arange(5), classes], atol=1e-5)


def test_boundary_head_takes_pyramid_and_pooled_features_with_the_same_weights():
    head = build("BoundaryMaskHead").eval()
    pyramid = features("PointRendMaskHead")
    with torch.no_grad():
        of_pyramid = head(pyramid, detections())
        of_tensor = head(features("BoundaryMaskHead"), detections())
    assert of_pyramid[0].pred_masks.shape == of_tensor[0].pred_masks.shape == (3, 1, 28, 28)


def test_boundary_branch_sees_the_finest_level():
    """A change in p2 alone reaches the mask of a large box, whose mask features come from a coarser level."""
    head = build("BoundaryMaskHead").eval()
    image = Instances((512, 512), pred_boxes=Boxes(torch.tensor([[0.0, 0.0, 500.0, 500.0]])))
    image.pred_classes, image.scores = torch.tensor([0]), torch.tensor([1.0])
    torch.manual_seed(0)
    pyramid = {f"p{level}": torch.rand(1, 16, 512 // 2**level, 512 // 2**level) for level in range(2, 6)}
    with torch.no_grad():
        before = head.predict(pyramid, [image.pred_boxes])
        after = head.predict({**pyramid, "p2": pyramid["p2"] + 1}, [image.pred_boxes])
    assert not torch.allclose(before[0], after[0])
    assert not torch.allclose(before[1], after[1])


def test_dct_head_draws_what_its_vector_says():
    head = build("DCTMaskHead").eval()
    disc = cv2.circle(np.zeros((128, 128), np.float32), (64, 60), 40, 1, -1)
    vector = DCTCodec(128, 300).encode(torch.as_tensor(disc))[None]
    mask = head.probs(vector, torch.zeros(1, dtype=torch.int64))[0, 0] > 0.5
    assert (mask.numpy() == (disc > 0)).mean() > 0.99


def test_patch_loss_is_zero_for_the_truth_and_counts_mixed_patches_only():
    masks = torch.zeros(2, 16, 16)
    masks[0, 3:12, 5:14] = 1
    patches = to_patches(masks, 8)
    kinds, vectors = patch_kinds(patches), DCTCodec(8, 6).encode(patches)
    sure = torch.nn.functional.one_hot(kinds, 3).permute(0, 3, 1, 2) * 100.0
    assert patch_loss(sure, vectors, kinds, vectors) == 0
    other = vectors + 2.0
    assert patch_loss(sure, other, kinds, vectors).item() == pytest.approx(2)
    background = torch.zeros(1, 3, 2, 2)
    background[:, 0] = 100
    none_mixed = torch.zeros(1, 2, 2, dtype=torch.int64)
    assert patch_loss(background, torch.ones(1, 2, 2, 6), none_mixed, torch.zeros(1, 2, 2, 6)) == 0


def test_patches_must_fill_the_mask():
    with pytest.raises(InputError, match="patches of 9 pixels do not fill a mask of 112"):
        build("PatchDCTMaskHead", patch_size=9)


@pytest.mark.parametrize("polygons", [False, True])
def test_mask_iou_counts_what_the_box_cuts_off(polygons):
    """A box over the left half of a square; the mask fills the box: IoU a half with the whole object."""
    outline = [[10.0, 10.0, 50.0, 10.0, 50.0, 50.0, 10.0, 50.0]]
    image = Instances((64, 64), proposal_boxes=Boxes(torch.tensor([[10.0, 10.0, 30.0, 50.0]])))
    image.gt_masks = PolygonMasks([outline]) if polygons else BitMasks.from_polygon_masks([outline], 64, 64)
    assert mask_iou(torch.ones(1, 28, 28), [image]).item() == pytest.approx(0.5, abs=0.01)
    assert mask_iou(torch.zeros(1, 28, 28), [image]).item() == 0


def test_mask_scores_are_class_scores_times_predicted_iou():
    head = build("MaskScoringHead").eval()
    torch.nn.init.constant_(head.iou_predictor.weight, 0)
    head.iou_predictor.bias.data = torch.tensor([0.5, -1.0, 2.0])
    with torch.no_grad():
        found = head(features("MaskScoringHead"), detections())
    for image in found:
        expected = image.scores * torch.tensor([0.5, 0.0, 1.0])[image.pred_classes]  # clamped to [0, 1]
        torch.testing.assert_close(image.pred_mask_scores, expected)


@pytest.mark.parametrize("base", [part.name for part in MASK_HEADS if part.name != "MaskScoringHead"])
def test_mask_scoring_goes_around_every_head(base):
    small = {"fc_dim": 16, "point_fc_dim": 8} if "PointRend" in base else {}
    head = build("MaskScoringHead", base=f"maskrcnn_ext.{base}", base_options=small)
    alone = build(base)
    x = features(base)
    head.base.load_state_dict(alone.state_dict())
    with EventStorage():
        torch.manual_seed(4)
        losses = head(x, truth())
        torch.manual_seed(4)
        expected = alone(x, truth())
    assert losses.keys() == {*expected, "loss_mask_iou"}
    for name, loss in expected.items():
        torch.testing.assert_close(losses[name], loss)
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in head.parameters())
    head.eval(), alone.eval()
    with torch.no_grad():
        for a, b in zip(head(x, detections()), alone(x, detections()), strict=True):
            torch.testing.assert_close(a.pred_masks, b.pred_masks)
            assert a.pred_mask_scores.shape == (len(a),)
        empty = head(features(base, 0), detections((0, 0)))
    assert [len(image.pred_mask_scores) for image in empty] == [0, 0]


def test_mask_scoring_takes_a_head_that_is_built_already():
    base = build("DCTMaskHead", num_coefficients=100)
    assert build("MaskScoringHead", base=base).base is base


def test_mask_scoring_goes_around_mask_heads_only():
    assert find_base("DCTMaskHead") is maskrcnn_ext.DCTMaskHead
    for base in ("DCTMask", "no.such.Head", "maskrcnn_ext.MaskScoringHead", MaskRCNNConvUpsampleHead, 3):
        with pytest.raises(InputError, match=r"MaskScoringHead needs .*set model.roi_heads.mask_head.base="):
            find_base(base)


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
            "FCNMaskHead was built for 16 channels and the pooler gives 32: set .*input_shape.channels=32",
        ),
        (
            "MLPMaskHead",
            torch.rand(5, 16, 28, 28),
            "MLPMaskHead was built for RoI features of 14 x 14 and the pooler gives 28 x 28: set .*output_size=14, or",
        ),
        (
            "MaskScoringHead",
            torch.rand(5, 16, 28, 28),
            "MaskScoringHead was built for RoI features of 14 x 14 and the pooler gives 28 x 28",
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
def test_what_does_not_fit_is_one_line_with_the_override(name, x, message):
    with pytest.raises(InputError, match=message) as caught:
        build(name)(x, detections())
    assert "\n" not in str(caught.value)
