"""The parts that compute as Keras's Mask R-CNN does, each against its description."""

import math

import numpy as np
import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.structures import Boxes, ImageList, Instances
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.modeling.matterport.boxes import InclusiveBoxTransform, clip_inclusive, nms_inclusive
from maskrcnn_ext.modeling.matterport.frame import Frame, canvas_size, centred
from maskrcnn_ext.modeling.matterport.pooler import MatterportPooler
from maskrcnn_ext.modeling.matterport.rcnn import LetterboxRCNN
from maskrcnn_ext.modeling.matterport.roi_heads import MatterportOutputLayers
from maskrcnn_ext.modeling.matterport.rpn import MatterportRPN
from maskrcnn_ext.modeling.matterport.stem import SamePoolStem
from maskrcnn_ext.ops.crop_and_resize import crop_and_resize

SCALES = [1 / 4, 1 / 8, 1 / 16, 1 / 32]


def transform(weights=(10.0, 10.0, 5.0, 5.0)):
    return InclusiveBoxTransform(weights=list(weights), scale_clamp=80.0)


# Stem


def test_max_pooling_begins_at_the_first_pixel():
    torch.manual_seed(0)
    stem, image = SamePoolStem(norm="FrozenBN"), torch.randn(2, 3, 64, 96)
    convolved = stem.conv1(image).relu()
    expected = F.max_pool2d(F.pad(convolved, (0, 1, 0, 1), value=-math.inf), 3, 2)
    assert torch.equal(stem(image), expected)
    assert expected.shape[2:] == (16, 24)


# Boxes


def test_deltas_move_boxes_by_extents_without_the_last_pixel():
    boxes = torch.tensor([[10.0, 20, 31, 61]])  # 20 and 40 from the first to the last pixel
    deltas = torch.tensor([[1.0, -1, 5 * math.log(2), 0, 0, 0, 0, 0]])
    moved = transform().apply_deltas(deltas, boxes)
    # Centre (20 + 2, 40 - 4), extents 40 and 40, and then the last pixel; the second class stays.
    assert torch.allclose(moved, torch.tensor([[2.0, 16, 43, 57, 10, 20, 31, 61]]), atol=1e-4)


def test_growth_has_no_limit():
    grown = transform().apply_deltas(torch.tensor([[0.0, 0, 25, 25]]), torch.tensor([[0.0, 0, 11, 11]]))
    assert torch.allclose(grown[:, 2] - grown[:, 0] - 1, torch.tensor([10 * math.exp(5)]), rtol=1e-4)


corner, extent = st.floats(0, 500), st.floats(2.5, 500)


@settings(max_examples=30, deadline=None)
@given(st.tuples(corner, corner, extent, extent), st.tuples(corner, corner, extent, extent))
def test_deltas_are_undone(a, b):
    source, target = (torch.tensor([[x, y, x + w, y + h]], dtype=torch.float32) for x, y, w, h in (a, b))
    deltas = transform().get_deltas(source, target)
    assert torch.allclose(transform().apply_deltas(deltas, source), target, atol=0.05)


@pytest.mark.parametrize("width", [0.0, 0.5, 1.0, 1.5])
def test_objects_of_a_pixel_have_finite_deltas(width):
    small = torch.tensor([[5.0, 5, 5 + width, 9]])
    large = torch.tensor([[0.0, 0, 20, 20]])
    assert transform().get_deltas(large, small).isfinite().all()
    assert transform().get_deltas(small, large).isfinite().all()


def test_a_box_outside_of_a_window_becomes_a_pixel_at_its_border():
    boxes = torch.tensor([[-5.0, 2, 8, 9], [30, 1, 40, 3], [-9, -9, -2, -2]])
    expected = [[0.0, 2, 8, 9], [19, 1, 20, 3], [0, 0, 1, 1]]
    assert clip_inclusive(boxes, torch.tensor([0.0, 0, 20, 10])).tolist() == expected
    windows = torch.tensor([[1.0, 3, 7, 8]]).expand(3, 4)
    assert clip_inclusive(boxes, windows)[0].tolist() == [1, 3, 7, 8]


def test_overlaps_are_those_of_extents_without_the_last_pixel():
    # 3 of 5 pixels are common, 2 of 4 from first to last: 3 / 7 of Detectron2's union, 1 / 3 of this one.
    boxes = torch.tensor([[0.0, 0, 5, 101], [2, 0, 7, 101]])
    scores, groups = torch.tensor([0.5, 0.9]), torch.tensor([0, 0])
    assert nms_inclusive(boxes, scores, groups, 0.34).tolist() == [1, 0]
    assert nms_inclusive(boxes, scores, groups, 0.33).tolist() == [1]
    assert nms_inclusive(boxes, scores, torch.tensor([0, 1]), 0.33).tolist() == [1, 0]


# Pooler


def test_boxes_are_pooled_from_matterports_level():
    torch.manual_seed(0)
    height, width = 256, 320
    features = [torch.randn(2, 3, int(height * s), int(width * s), dtype=torch.float64) for s in SCALES]
    rng = np.random.default_rng(0)
    starts, extents = rng.uniform(0, 60, (400, 2)), np.exp(rng.uniform(0, math.log(200), (400, 2)))
    extents[::4] = rng.uniform(79, 81, (100, 1))  # CropResizePooler goes to the next level at 79.2
    boxes = np.concatenate([starts, starts + extents], 1)
    boxes = np.concatenate([boxes, [[7, 7, 8, 8], [7, 7, 7.5, 90], [0, 0, width, height]]])
    pooler = MatterportPooler(3, SCALES, 0, "ROIAlignV2")
    pooled = pooler(features, [Boxes(torch.from_numpy(boxes[:100])), Boxes(torch.from_numpy(boxes[100:]))])

    unit = (boxes - [0, 0, 1, 1]) / [width - 1, height - 1, width - 1, height - 1]
    area = (unit[:, 2:] - unit[:, :2]).clip(0).prod(1)
    with np.errstate(divide="ignore"):
        offsets = np.rint(np.log2(np.sqrt(area) / (224 / math.sqrt(height * width))))
    levels = np.clip(4 + offsets, 2, 5).astype(int) - 2
    assert set(levels) == {0, 1, 2}
    images = torch.from_numpy((np.arange(len(boxes)) >= 100).astype(int))
    unit = torch.from_numpy(unit[:, [1, 0, 3, 2]])
    for number in set(levels):
        own = torch.from_numpy(levels == number)
        expected = crop_and_resize(features[number], unit[own], images[own], (3, 3))
        # Boxes are float32 in Detectron2.
        assert torch.allclose(pooled[own], expected, atol=1e-3)


@pytest.mark.parametrize(("extent", "level"), [(112 * math.sqrt(2), 2), (112 * math.sqrt(2) - 0.01, 1), (1, 0)])
def test_a_half_goes_to_the_even_level(extent, level):
    # log2(sqrt(area) / 224) of a square of 112 * sqrt(2) is -0.5; scales H / (H - 1) are undone by the box's size.
    size = 1024
    side = extent * (size - 1) / size + 1
    pooler = MatterportPooler(1, SCALES, 0, "ROIAlignV2")
    features = [torch.full((1, 1, int(size * s), int(size * s)), float(n)) for n, s in enumerate(SCALES)]
    assert pooler(features, [Boxes(torch.tensor([[0, 0, side, side]], dtype=torch.float64))]).item() == level


def test_no_boxes_and_gradients_pass_the_pooler():
    pooler = MatterportPooler(3, SCALES, 0, "ROIAlignV2")
    features = [torch.randn(1, 2, 64 >> n, 64 >> n, requires_grad=True) for n in range(4)]
    empty = pooler(features, [Boxes(torch.zeros(0, 4))])
    assert empty.shape == (0, 2, 3, 3)
    empty.sum().backward()
    pooler(features, [Boxes(torch.tensor([[3.0, 3, 40, 40]]))]).sum().backward()
    assert features[0].grad.abs().sum() > 0


# Proposals


class GivenHead(nn.Module):
    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, features):
        return self.logits, [level.new_zeros(len(level), 4, *level.shape[2:]) for level in features]


def rpn(logits, pre=100, post=100, threshold=0.7):
    return MatterportRPN(
        in_features=["p2", "p3"],
        head=GivenHead(logits),
        anchor_generator=DefaultAnchorGenerator(sizes=[[6], [12]], aspect_ratios=[1.0], strides=[4, 8], offset=0.0),
        anchor_matcher=Matcher([0.3, 0.7], [0, -1, 1]),
        box2box_transform=transform(),
        batch_size_per_image=8,
        positive_fraction=0.5,
        pre_nms_topk=[pre, pre],
        post_nms_topk=[post, post],
        nms_thresh=threshold,
    ).eval()


def propose(module, logits, window=(16, 32)):
    features = {name: torch.zeros(1, 1, *level.shape[2:]) for name, level in zip(("p2", "p3"), logits, strict=True)}
    return module(ImageList(torch.zeros(1, 3, 16, 32), [window]), features)[0][0]


def level_logits(*levels):
    return [
        torch.tensor(level, dtype=torch.float32).view(1, 1, *shape)
        for level, shape in zip(levels, [(4, 8), (2, 4)], strict=True)
    ]


def test_levels_compete_for_places_and_with_each_other():
    fine, coarse = np.linspace(-1, 1, 32), np.linspace(2, 3, 8)
    logits = level_logits(fine, coarse)
    best = propose(rpn(logits, pre=10), logits)
    # Eight of the coarse level, and two are left for the fine one.
    assert best.objectness_logits.tolist() == pytest.approx([*coarse[::-1], *fine[:-3:-1]])
    assert len(propose(rpn(logits, pre=10, post=3), logits)) == 3
    # With a low threshold the coarse boxes drive out fine ones that lie in them.
    strict = propose(rpn(logits, threshold=0.1), logits)
    assert 0 < len(strict) < 20


def test_proposals_are_clipped_to_the_padded_image_and_kept_however_small():
    logits = level_logits(np.full(32, -9.0), np.linspace(2, 3, 8))
    found = propose(rpn(logits, pre=8), logits, window=(10, 20))
    assert found.image_size == (16, 32)
    assert found.proposal_boxes.tensor[:, 2:].max(dim=0).values.tolist() == [30, 14]
    assert found.proposal_boxes.tensor[:, :2].min() == 0


def test_equal_probabilities_keep_the_order_of_anchors():
    # Sigmoids of 30 and 40 are both 1 in float32.
    fine, coarse = np.full(32, -9.0), np.full(8, -9.0)
    fine[[5, 20]], coarse[3] = [30, 40], 60
    found = propose(rpn(level_logits(fine, coarse), pre=3), level_logits(fine, coarse))
    assert found.objectness_logits.tolist() == [30, 40, 60]


def test_nan_is_no_proposal_and_ends_training():
    logits = level_logits(np.linspace(0, 1, 32), np.full(8, np.nan))
    module = rpn(logits)
    assert propose(module, logits).objectness_logits.isfinite().all()
    module.training = True
    anchors = module.anchor_generator([torch.zeros(1, 1, 4, 8), torch.zeros(1, 1, 2, 4)])
    with pytest.raises(FloatingPointError, match="diverged"):
        module.predict_proposals(
            anchors, [x.flatten(1) for x in logits], [torch.zeros(1, 32, 4), torch.zeros(1, 8, 4)], [(16, 32)]
        )


# Detections


def predictor(**more):
    options = {"test_score_thresh": 0.5, "test_nms_thresh": 0.3, "test_topk_per_image": 10, **more}
    return MatterportOutputLayers(ShapeSpec(channels=4), box2box_transform=transform(), num_classes=2, **options)


def detections(probabilities, boxes, window=None, deltas=None, **more):
    logits = torch.tensor(probabilities).view(-1, 3).log()
    proposals = Instances((100, 100), proposal_boxes=Boxes(torch.tensor(boxes).view(-1, 4)))
    if window:
        proposals.window = torch.tensor([window] * len(boxes), dtype=torch.float32).view(-1, 4)
    deltas = torch.zeros(len(logits), 8) if deltas is None else deltas
    (found,), (kept,) = predictor(**more).inference((logits, deltas), [proposals])
    return found, kept.tolist()


APART = [[0.0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 50, 50], [60, 60, 70, 70]]


def test_a_proposal_has_one_class_at_most():
    probabilities = [[0.6, 0.4, 0.0], [0.1, 0.2, 0.7], [0.4, 0.5, 0.1], [0.45, 0.4, 0.15]]
    found, kept = detections(probabilities, APART)
    # The second is background, the last one not sure enough; 0.5 is enough.
    assert kept == [0, 2]
    assert found.pred_classes.tolist() == [0, 1]
    assert found.scores.tolist() == pytest.approx([0.6, 0.5])
    assert detections(probabilities, APART, test_topk_per_image=1)[1] == [0]


def test_boxes_of_a_class_drive_each_other_out():
    boxes = [[0.0, 0, 20, 20], [1, 1, 21, 21], [2, 2, 22, 22]]
    _, kept = detections([[0.8, 0.1, 0.1], [0.9, 0.05, 0.05], [0.1, 0.7, 0.2]], boxes)
    assert kept == [1, 2]


def test_a_box_is_that_of_its_class_and_inside_of_the_window():
    deltas = torch.zeros(1, 8)
    deltas[0, 4] = 10  # the second class moves by its width
    found, _ = detections([[0.1, 0.9, 0.0]], [[10.0, 10, 31, 31]], window=[0, 15, 45, 80], deltas=deltas)
    assert found.pred_boxes.tensor.tolist() == [[30, 15, 45, 31]]
    found, _ = detections([[0.1, 0.9, 0.0]], [[90.0, 10, 131, 31]])  # no window: the image
    assert found.pred_boxes.tensor.tolist() == [[90, 10, 100, 31]]


def test_no_proposals_and_nan_give_no_detections():
    assert len(detections([], [])[0]) == 0
    found, _ = detections([[math.nan] * 3], [[0.0, 0, 10, 10]])
    assert len(found) == 0


# Padding


def test_canvas_and_window():
    assert canvas_size([(100, 65), (64, 130)], 0) == (128, 192)
    assert canvas_size([(100, 65)], 512) == (512, 512)
    assert centred((100, 65), (128, 128)) == (31, 14, 96, 114)


def frames(**more):
    return Frame(window=(0, 16, 128, 112), output_size=(481, 640), **more)


def test_boxes_leave_the_canvas_as_matterport_scales_them():
    boxes = torch.tensor([[0.0, 16, 128, 112], [10, 20, 40, 60]])
    outward = Boxes(frames().outward(boxes))
    outward.scale(640 / 128, 481 / 96)  # as Detectron2's postprocessing
    # The window is the whole image. Else (10 - 0) / 127 * 639, (20 - 16) / 95 * 480, and the same of the last pixels.
    expected = [[0, 0, 640, 481], [10 / 127 * 639, 4 / 95 * 480, 39 / 127 * 639 + 1, 43 / 95 * 480 + 1]]
    assert torch.allclose(outward.tensor, torch.tensor(expected), atol=1e-3)
    rounded = Boxes(frames(round_boxes=True).outward(boxes))
    rounded.scale(640 / 128, 481 / 96)
    assert torch.allclose(rounded.tensor, torch.tensor(expected).round(), atol=1e-4)
    assert torch.allclose(frames().inward(frames().outward(boxes)), boxes, atol=1e-3)


def test_a_pixel_has_a_frame():
    frame = Frame(window=(31, 31, 32, 32), output_size=(1, 1))
    assert frame.outward(torch.tensor([[31.0, 31, 32, 32]])).tolist() == [[0, 0, 1, 1]]


@pytest.mark.parametrize("training", [False, True])
def test_images_are_padded_with_black_before_the_mean_is_subtracted(training):
    parts = {name: nn.Identity() for name in ("backbone", "proposal_generator", "roi_heads")}
    model = LetterboxRCNN(**parts, pixel_mean=[10.0, 20, 30], pixel_std=[1.0, 1, 2], square_size=64).train(training)
    batch = [{"image": torch.full((3, *size), 50, dtype=torch.uint8)} for size in ((20, 64), (64, 33))]
    images = model.preprocess_image(batch)
    assert images.image_sizes == [(20, 64), (64, 33)]
    expected = torch.zeros(2, 3, 64, 64)
    if training:
        expected[0, :, :20], expected[1, :, :, :33] = 50, 50
    else:
        expected[0, :, 22:42], expected[1, :, :, 15:48] = 50, 50
    mean, std = torch.tensor([10.0, 20, 30]).view(3, 1, 1), torch.tensor([1.0, 1, 2]).view(3, 1, 1)
    assert torch.equal(images.tensor, (expected - mean) / std)


def test_keypoints_are_refused():
    heads = nn.Identity()
    heads.keypoint_on = True
    parts = {"backbone": nn.Identity(), "proposal_generator": nn.Identity(), "roi_heads": heads}
    with pytest.raises(InputError, match="has no keypoints"):
        LetterboxRCNN(**parts, pixel_mean=[0.0], pixel_std=[1.0])


def test_the_transform_is_detectron2s_on_boxes_without_the_last_pixel():
    torch.manual_seed(0)
    boxes, deltas = torch.rand(20, 4) * 50 + torch.tensor([0.0, 0, 60, 60]), torch.randn(20, 4)
    ours = transform().apply_deltas(deltas, boxes)
    last = torch.tensor([0.0, 0, 1, 1])
    theirs = Box2BoxTransform(weights=(10.0, 10.0, 5.0, 5.0)).apply_deltas(deltas, boxes - last) + last
    assert torch.equal(ours, theirs)
