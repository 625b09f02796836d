"""BoxPredictor: Detectron2's detections by default, and other selections in every model that predicts with it."""

import pytest
import torch
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.structures import Boxes, Instances
from pycocotools import mask as mask_util
from torchvision.ops import box_iou

from maskrcnn_ext import TTARCNN, BoxPredictor, CompactRCNN, InputError, optimize
from maskrcnn_ext.inference.optimization.optimize import parts_of
from maskrcnn_ext.interop.export.graph import Exportable
from maskrcnn_ext.modeling.box_predictor import Candidates
from maskrcnn_ext.modeling.fit_check import check_fit
from maskrcnn_ext.ops.mask_paste import paste_to_rle
from tests.helpers.random_models import FPN, INPUTS, build

SELECTIONS = [
    {"suppression": "soft"},
    {"suppression": "diou"},
    {"suppression": "mask"},
    {"use_maskness": True},
    {"suppression": "mask", "use_maskness": True},
    {"class_agnostic_suppression": True},
]


def with_predictor(config=FPN, **options):
    head = options.pop("mask_head", {})
    changes = {"mask_head": head} if head else {}
    return build(config, box_predictor={"_target_": "maskrcnn_ext.BoxPredictor", **options}, **changes)


def detect(model, postprocess=True):
    with torch.inference_mode():
        found = model.inference(INPUTS, do_postprocess=postprocess)
    return [one["instances"] if postprocess else one for one in found]


@pytest.fixture(scope="module")
def stock():
    return build(FPN)


@pytest.fixture(scope="module")
def swapped():
    """The stock model's twin, whose predictor's settings the tests change."""
    return with_predictor()


@pytest.fixture(scope="module")
def quick(swapped):
    return optimize(swapped, dtype="fp32")


@pytest.fixture
def predictor(swapped):
    predictor = swapped.roi_heads.box_predictor
    before = dict(vars(predictor))
    yield predictor
    vars(predictor).update(before)


def same(one, other):
    assert one.get_fields().keys() == other.get_fields().keys()
    for name, value in one.get_fields().items():
        expected = other.get(name)
        value, expected = (x.tensor if isinstance(x, Boxes) else x for x in (value, expected))
        torch.testing.assert_close(value, expected, rtol=0, atol=0)


def test_by_default_weights_and_detections_are_detectron2s(stock, swapped):
    assert swapped.state_dict().keys() == stock.state_dict().keys()
    for one, other in zip(detect(swapped), detect(stock), strict=True):
        assert len(other) >= 5
        same(one, other)


def test_training_is_detectron2s():
    assert BoxPredictor.losses is FastRCNNOutputLayers.losses
    assert BoxPredictor.forward is FastRCNNOutputLayers.forward


@pytest.mark.parametrize("suppression", ["soft", "diou", "mask"])
def test_without_overlaps_every_selection_is_detectron2s(stock, swapped, predictor, suppression):
    """With thresholds that suppress nothing, the rules agree."""
    predictor.suppression = suppression
    predictor.soft_sigma = 1e9
    predictor.test_nms_thresh = predictor.candidate_nms_thresh = 1.0
    before, stock.roi_heads.box_predictor.test_nms_thresh = stock.roi_heads.box_predictor.test_nms_thresh, 1.0
    try:
        for one, other in zip(detect(swapped), detect(stock), strict=True):
            assert len(one) == len(other)
            torch.testing.assert_close(one.scores, other.scores, rtol=1e-5, atol=0)
    finally:
        stock.roi_heads.box_predictor.test_nms_thresh = before


def test_masks_of_detections_do_not_overlap_beyond_the_threshold(swapped, predictor):
    predictor.suppression, predictor.test_nms_thresh = "mask", 0.3
    for found in detect(swapped, postprocess=False):
        assert 0 < len(found) <= predictor.test_topk_per_image
        assert (found.scores.diff() <= 0).all()
        rles = paste_to_rle(found.pred_masks[:, 0], found.pred_boxes.tensor, found.image_size)
        overlaps = torch.from_numpy(mask_util.iou(rles, rles, [0] * len(rles)))
        same_class = found.pred_classes[:, None] == found.pred_classes
        assert (overlaps * same_class).triu(1).max() <= 0.3


def test_scores_are_multiplied_by_maskness(stock, swapped, predictor):
    predictor.use_maskness = True
    for found, expected in zip(detect(swapped, postprocess=False), detect(stock, postprocess=False), strict=True):
        probs = expected.pred_masks[:, 0]
        scores = [
            s * (p[p >= 0.5].mean() if (p >= 0.5).any() else 0) for s, p in zip(expected.scores, probs, strict=True)
        ]
        torch.testing.assert_close(
            found.scores, torch.stack(list(map(torch.as_tensor, scores))).sort(descending=True)[0]
        )


def test_classes_suppress_each_other_by_an_option(swapped, predictor):
    predictor.class_agnostic_suppression = True
    for found in detect(swapped):
        boxes = found.pred_boxes.tensor.double()
        assert box_iou(boxes, boxes).triu(1).max() <= predictor.test_nms_thresh + 1e-6
        assert len(set(found.pred_classes.tolist())) > 1


@pytest.mark.parametrize("selection", SELECTIONS, ids=str)
def test_optimized_and_compact_models_select_alike(swapped, quick, predictor, selection):
    settings = {"suppression": "hard", "use_maskness": False, "class_agnostic_suppression": False, **selection}
    vars(predictor).update(settings)
    vars(quick.roi_heads.box_predictor).update(settings)
    expected = detect(swapped)
    compact = CompactRCNN(**parts_of(swapped)).eval()
    for found in (detect(compact), detect(quick)):
        for one, other in zip(found, expected, strict=True):
            assert len(one) == len(other) > 0
            torch.testing.assert_close(one.scores, other.scores, rtol=0, atol=1e-3)
            torch.testing.assert_close(one.pred_boxes.tensor, other.pred_boxes.tensor, rtol=0, atol=0.05)


@pytest.mark.parametrize("selection", [{"suppression": "soft"}, {"suppression": "mask", "use_maskness": True}], ids=str)
def test_test_time_augmentation_selects_among_all_views(swapped, predictor, selection):
    vars(predictor).update(selection)
    model = TTARCNN(**parts_of(swapped), tta_scales=[1.0], tta_flip=True).eval()
    for found in detect(model):
        assert 0 < len(found) <= predictor.test_topk_per_image
        assert len(found.pred_masks) == len(found)
        assert (found.scores.diff() <= 0).all()


def test_mask_scoring_keeps_its_scores():
    head = {"_target_": "maskrcnn_ext.MaskScoringHead", "fc_dims": [16]}
    for found in detect(with_predictor(suppression="mask", mask_head=head)):
        assert len(found.pred_mask_scores) == len(found) > 0
        assert (found.pred_mask_scores <= found.scores).all()


def test_images_without_detections(swapped, predictor):
    predictor.test_score_thresh = 1.0
    for selection in SELECTIONS:
        vars(predictor).update(selection)
        assert [len(found) for found in detect(swapped)] == [0, 0]


def test_class_agnostic_models_export_and_others_raise_the_reason(swapped, predictor):
    predictor.class_agnostic_suppression = True
    (expected,) = swapped.inference([INPUTS[0]], do_postprocess=False)
    with torch.no_grad():
        boxes, scores, classes, *_ = Exportable(swapped)(INPUTS[0]["image"])
    torch.testing.assert_close(boxes, expected.pred_boxes.tensor, rtol=0, atol=1e-3)
    torch.testing.assert_close(scores, expected.scores, rtol=0, atol=1e-5)
    assert torch.equal(classes, expected.pred_classes)
    for selection in ({"suppression": "soft"}, {"use_maskness": True}):
        vars(predictor).update({"suppression": "hard", "use_maskness": False, **selection})
        with pytest.raises(InputError, match="suppresses by box IoU only"):
            Exportable(swapped)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"suppression": "fuzzy"}, "suppression=fuzzy: expected hard, soft, diou or mask"),
        ({"soft_sigma": 0}, "soft_sigma=0"),
        ({"candidate_nms_thresh": 1.2}, "candidate_nms_thresh=1.2"),
    ],
)
def test_wrong_arguments_are_one_line(options, message):
    with pytest.raises(Exception, match=message) as caught:
        with_predictor(**options)
    root = caught.value if isinstance(caught.value, InputError) else caught.value.__cause__
    assert isinstance(root, InputError)


def test_a_cascade_and_a_model_without_masks_are_refused(swapped, predictor):
    boxes_only = with_predictor("faster_rcnn_r18_fpn_scratch.py", suppression="mask")
    with pytest.raises(InputError, match="no mask head, and BoxPredictor selects by masks"):
        check_fit(boxes_only)
    boxes_only.roi_heads.box_predictor.suppression = "soft"
    check_fit(boxes_only)
    cascade = build("cascade_mask_rcnn_r18_fpn_scratch.py")
    cascade.roi_heads.box_predictor[2] = predictor
    with pytest.raises(InputError, match="CascadeROIHeads selects detections itself"):
        check_fit(cascade)


def test_candidates_choose_once():
    found = Instances((4, 4), scores=torch.tensor([0.1, 0.9]))
    candidates = Candidates.of(found, lambda one: one[one.scores > 0.5])
    assert len(candidates) == 2
    candidates.pred_masks = torch.ones(2, 1, 2, 2)
    assert candidates.scores.tolist() == [pytest.approx(0.9)]
    candidates.pred_masks = torch.zeros(1, 1, 2, 2)
    assert len(candidates) == 1
