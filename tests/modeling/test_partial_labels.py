"""RoI heads with incomplete labels: the stock heads where labels are complete, and numpy and float64 references elsewhere."""

import numpy as np
import pytest
import torch
from detectron2.config import LazyCall, LazyConfig, get_cfg, instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_roi_heads
from detectron2.modeling.roi_heads import CascadeROIHeads, Res5ROIHeads, StandardROIHeads
from detectron2.structures import BitMasks, Boxes, BoxMode, ImageList, Instances, pairwise_iou
from detectron2.utils.events import EventStorage
from PIL import Image

import maskrcnn_ext
from maskrcnn_ext import PartialCascadeROIHeads, PartialRes5ROIHeads, PartialROIHeads, SafeMapper
from maskrcnn_ext.env import setup_environment
from maskrcnn_ext.modeling.partial_labels import merge_unlabelled_classes
from maskrcnn_ext.ops.unlabelled import IgnoreRegion, Unlabelled

SIZE = (96, 128)
CLASSES = 5
FORMS = {
    "standard": ("mask_rcnn_r18_fpn_scratch.py", StandardROIHeads, PartialROIHeads),
    "cascade": ("cascade_mask_rcnn_r18_fpn_scratch.py", CascadeROIHeads, PartialCascadeROIHeads),
    "c4": ("mask_rcnn_r50_c4_1x.py", Res5ROIHeads, PartialRes5ROIHeads),
}


def build(form, kind, **options):
    node = maskrcnn_ext.get_config(FORMS[form][0]).model.roi_heads
    node._target_ = kind
    node.num_classes = CLASSES
    for key, value in options.items():
        node[key] = value
    if form == "c4":
        node.res5 = LazyCall(torch.nn.Conv2d)(in_channels=8, out_channels=16, kernel_size=3, stride=2, padding=1)
        node.in_features, node.pooler.scales = ["p4"], [1 / 16]
        node.box_predictor.input_shape.channels = node.mask_head.input_shape.channels = 16
        node.mask_head.conv_dims = [8]
        torch.manual_seed(0)
        return instantiate(node).train()
    for shape in (node.box_head if form == "standard" else node.box_heads[0], node.mask_head):
        shape.input_shape.channels = 8
    node.mask_head.conv_dims = [8, 8]
    for head in [node.box_head] if form == "standard" else node.box_heads:
        head.input_shape.channels, head.conv_dims, head.fc_dims = 8, [], [16]
    for predictor in [node.box_predictor] if form == "standard" else node.box_predictors:
        predictor.input_shape.channels = 16
    torch.manual_seed(0)
    return instantiate(node).train()


def region_of(*boxes):
    mask = torch.zeros(SIZE, dtype=torch.bool)
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] = True
    return IgnoreRegion(mask)


def truth(boxes, region=None, labelled=None):
    masks = torch.zeros(len(boxes), *SIZE, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    image = Instances(SIZE, gt_boxes=Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)))
    image.gt_classes = torch.arange(len(boxes)) % CLASSES
    image.gt_masks = BitMasks(masks)
    if region is not None or labelled is not None:
        image.gt_unlabelled = Unlabelled(
            len(boxes), region, None if labelled is None else torch.tensor(labelled, dtype=torch.int64)
        )
    return image


TRUTH = [(10, 10, 50, 40), (60, 20, 100, 80)]


def proposals(count=60):
    found = []
    for seed in (1, 2):
        generator = torch.Generator().manual_seed(seed)
        corners = torch.rand(count, 2, generator=generator) * torch.tensor([90.0, 60.0])
        sides = torch.rand(count, 2, generator=generator) * 30 + 6
        image = Instances(SIZE, proposal_boxes=Boxes(torch.cat([corners, corners + sides], dim=1)))
        image.objectness_logits = torch.zeros(count)
        found.append(image)
    return found


def features():
    generator = torch.Generator().manual_seed(3)
    return {f"p{k}": torch.randn(2, 8, -(-96 // 2**k), 128 // 2**k, generator=generator) for k in range(2, 6)}


def step(heads, targets):
    images = ImageList(torch.zeros(2, 3, *SIZE), [SIZE, SIZE])
    torch.manual_seed(5)
    with EventStorage():
        _, losses = heads(images, features(), proposals(), targets)
    sum(losses.values()).backward()
    gradients = [parameter.grad for parameter in heads.parameters()]
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients)
    return {name: loss.detach() for name, loss in losses.items()}, gradients, torch.rand(1)


@pytest.mark.parametrize("form", FORMS)
def test_complete_labels_give_the_stock_losses(form):
    _, stock, ours = FORMS[form]
    targets = [truth(TRUTH), truth([])]
    expected, expected_gradients, expected_random = step(build(form, stock), targets)
    losses, gradients, random = step(build(form, ours), targets)
    assert losses.keys() == expected.keys()
    assert all(torch.equal(loss, expected[name]) for name, loss in losses.items())
    assert all(torch.equal(one, other) for one, other in zip(gradients, expected_gradients, strict=True))
    assert torch.equal(random, expected_random)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "targets",
    {
        "a region": [truth(TRUTH, region_of((0, 40, 60, 96))), truth([])],
        "all is ignored, without objects": [truth([], region_of((0, 0, 128, 96)))] * 2,
        "classes that are not labelled": [truth(TRUTH, labelled=[0, 1]), truth([], labelled=[])],
    }.items(),
    ids=lambda item: item[0],
)
def test_a_step_with_incomplete_labels_trains_all_parameters(form, targets):
    losses, _, _ = step(build(form, FORMS[form][2]), targets[1])
    assert all(torch.isfinite(loss) for loss in losses.values())


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8])
def test_samples_equal_a_numpy_reference(threshold):
    region = region_of((0, 40, 60, 96), (90, 0, 128, 30))
    heads = build("standard", PartialROIHeads, batch_size_per_image=1000, positive_fraction=1.0)
    heads.ignore_threshold, heads.proposal_append_gt = threshold, False
    given = proposals()
    with EventStorage():
        sampled = heads.label_and_sample_proposals(given, [truth(TRUTH, region), truth([], region)])
    mask = region.mask.numpy()
    for image, before, boxes in zip(sampled, given, (TRUTH, []), strict=True):
        every = before.proposal_boxes.tensor
        overlaps = pairwise_iou(Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)), Boxes(every)).numpy()
        expected = {}
        for index, box in enumerate(every.tolist()):
            best = overlaps[:, index].max() if boxes else 0.0
            grid = mask[np.ix_(*(np.linspace(low, high, 400, endpoint=False).astype(int) for low, high in _sides(box)))]
            share = grid.mean() * _inside(box)
            if best >= 0.5 or share < threshold - 0.01:
                expected[tuple(box)] = int(overlaps[:, index].argmax()) if best >= 0.5 else CLASSES
            elif share < threshold + 0.01:
                expected[tuple(box)] = None  # too close to tell from samples
        found = dict(zip(map(tuple, image.proposal_boxes.tensor.tolist()), image.gt_classes.tolist(), strict=True))
        unsure = {box for box, label in expected.items() if label is None}
        assert {box: label for box, label in found.items() if box not in unsure} == {
            box: label for box, label in expected.items() if box not in unsure
        }
        assert len(found) < len(every), "some are ignored"


def _sides(box):
    x0, y0, x1, y1 = box
    return (y0, min(y1, SIZE[0])), (x0, min(x1, SIZE[1]))


def _inside(box):
    """The share of a box that is in the image."""
    (y0, y1), (x0, x1) = _sides(box)
    return (y1 - y0) * (x1 - x0) / ((box[3] - box[1]) * (box[2] - box[0]))


def scored(*rows):
    """Proposals of images: (classes, labelled classes or None)."""
    found = []
    for classes, labelled in rows:
        image = Instances(SIZE, gt_classes=torch.tensor(classes))
        if labelled is not None:
            image.gt_unlabelled = Unlabelled(len(classes), None, torch.tensor(labelled, dtype=torch.int64))
        found.append(image)
    return found


def test_the_marginal_loss_equals_its_formula():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(6, 4, generator=generator) * 3
    given = scored(([3, 0, 3], [0]), ([3, 1, 3], None))
    merged = merge_unlabelled_classes(scores, given)
    classes = torch.cat([image.gt_classes for image in given])
    found = torch.nn.functional.cross_entropy(merged, classes, reduction="none")
    probs = scores.double().softmax(1).numpy()
    expected = [
        -np.log(probs[0, [1, 2, 3]].sum()),
        -np.log(probs[1, 0]),
        -np.log(probs[2, [1, 2, 3]].sum()),
        -np.log(probs[3, 3]),
        -np.log(probs[4, 1]),
        -np.log(probs[5, 3]),
    ]
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


def test_a_score_of_an_unlabelled_class_is_not_punished():
    scores = torch.tensor([[0.0, 4.0, 0.0, -1.0]], requires_grad=True)
    merged = merge_unlabelled_classes(scores, scored(([3], [0])))
    torch.nn.functional.cross_entropy(merged, torch.tensor([3])).backward()
    labelled, one, other, background = scores.grad[0].tolist()
    assert labelled > 0 > one, "the labelled class falls, the unlabelled one does not"
    assert one < other < 0
    assert background < 0


def test_complete_labels_leave_the_scores_as_they_are():
    scores = torch.randn(3, 4)
    for given in (scored(([3, 0, 3], None)), scored(([1, 0, 2], [0])), scored(([3, 0, 3], [0, 1, 2]))):
        assert merge_unlabelled_classes(scores, given) is scores
    assert merge_unlabelled_classes(scores[:0], scored(([], [0]))).shape == (0, 4)


def test_half_precision():
    merged = merge_unlabelled_classes(torch.randn(2, 4).half(), scored(([3, 3], [0])))
    loss = torch.nn.functional.cross_entropy(merged.float(), torch.tensor([3, 3]))
    assert torch.isfinite(loss)


@pytest.mark.parametrize("name", ["PartialROIHeads", "PartialCascadeROIHeads", "PartialRes5ROIHeads"])
def test_yacs(name):
    setup_environment()
    cfg = get_cfg()
    cfg.MODEL.ROI_HEADS.NAME = name
    cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p2"] if name == "PartialRes5ROIHeads" else ["p2", "p3"]
    cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG = True
    cfg.MODEL.ROI_BOX_HEAD.NAME, cfg.MODEL.ROI_BOX_HEAD.NUM_FC, cfg.MODEL.ROI_BOX_HEAD.FC_DIM = (
        "FastRCNNConvFCHead",
        1,
        8,
    )
    shapes = {f"p{level}": ShapeSpec(channels=8, stride=2**level) for level in (2, 3)}
    assert type(build_roi_heads(cfg, shapes)).__name__ == name


def test_a_stock_config_takes_part_by_overrides(tmp_path):
    """From dicts to losses: ignore regions, and classes that an image does not label, change the training."""
    cfg = maskrcnn_ext.get_config("mask_rcnn_r18_fpn_scratch.py")
    overrides = [
        "model.proposal_generator._target_=maskrcnn_ext.FastRPN",
        "model.roi_heads._target_=maskrcnn_ext.PartialROIHeads",
        "model.roi_heads.mask_head._target_=maskrcnn_ext.FCNMaskHead",
        "model.roi_heads.num_classes=3",
    ]
    model = instantiate(LazyConfig.apply_overrides(cfg, overrides).model).train()
    Image.new("RGB", (96, 64), (90, 120, 30)).save(tmp_path / "a.png")
    box = {"bbox": [10, 10, 40, 40], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    crowd = {"bbox": [45, 0, 96, 64], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 1, "iscrowd": 1}
    square = {**box, "segmentation": [[10, 10, 40, 10, 40, 40, 10, 40]]}
    image = {"file_name": str(tmp_path / "a.png"), "image_id": 1, "height": 64, "width": 96}
    records = [
        {**image, "annotations": [square, box, crowd]},
        {**image, "annotations": [], "labelled_classes": [2]},
    ]
    mapper = SafeMapper(
        True, augmentations=[], image_format="BGR", use_instance_mask=True, missing_masks="box-only", strict=True
    )
    with EventStorage() as storage:
        losses = model([mapper(record) for record in records])
    assert storage.latest()["mask_rcnn/accuracy"][0] >= 0, "the object with a mask was trained"
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
