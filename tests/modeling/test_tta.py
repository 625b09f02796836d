"""Test-time augmentation: Detectron2's own as reference, the plain model where there is one view, and mirrored images."""

from types import SimpleNamespace

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, instantiate
from detectron2.data.transforms import HFlipTransform, NoOpTransform, ResizeTransform, TransformList
from detectron2.modeling import GeneralizedRCNNWithTTA
from detectron2.modeling.backbone.resnet import BasicBlock, ResNet
from detectron2.structures import Boxes, ImageList, Instances
from torch.nn import functional as F

from maskrcnn_ext import TTARCNN, InputError, get_config
from maskrcnn_ext.ops.rle_masks import RLEMasks

SIZE = (64, 96)
HEAD = "model.roi_heads.mask_head"
NARROW = [f"{HEAD}.conv_dims=[16,16]"]
FLIP = [0, 2, 1, 4, 3]
POINTS = [f"{HEAD}.fc_dim=16", f"{HEAD}.point_fc_dim=16"]
POSE = ["model.roi_heads.keypoint_head.num_keypoints=5", "model.roi_heads.keypoint_head.conv_dims=[16,16]"]
KINDS = {
    "fcn": ("mask_rcnn_r18_fpn_scratch.py", NARROW),
    "scoring": (
        "mask_rcnn_r18_fpn_scratch.py",
        [*NARROW, f"{HEAD}._target_=maskrcnn_ext.MaskScoringHead", f"{HEAD}.fc_dims=[16]"],
    ),
    "refine": (
        "mask_rcnn_r18_fpn_scratch.py",
        [*NARROW, f"{HEAD}._target_=maskrcnn_ext.RefineMaskHead", "model.roi_heads.mask_pooler=null"],
    ),
    "point_rend": (
        "mask_rcnn_r18_fpn_scratch.py",
        [*NARROW, f"{HEAD}._target_=maskrcnn_ext.PointRendMaskHead", "model.roi_heads.mask_pooler=null", *POINTS],
    ),
    "cascade": ("cascade_mask_rcnn_r18_fpn_scratch.py", NARROW),
    "boxes": ("faster_rcnn_r18_fpn_scratch.py", []),
    "pose": ("keypoint_rcnn_r18_fpn_scratch.py", [*POSE, f"model.tta_keypoint_flip_indices={FLIP}"]),
    "both": ("mask_keypoint_rcnn_r18_fpn_scratch.py", [*NARROW, *POSE, f"model.tta_keypoint_flip_indices={FLIP}"]),
}


def narrow_stages():
    """ResNet-18's, of 8 to 64 channels."""
    return [
        ResNet.make_stage(
            BasicBlock,
            2,
            in_channels=8 if stage == 0 else 4 << stage,
            out_channels=8 << stage,
            stride_per_block=[1 if stage == 0 else 2, 1],
            norm="BN",
        )
        for stage in range(4)
    ]


def build(kind, *overrides, target="TTARCNN"):
    """A narrow model of random weights that are the same for every target and views."""
    config, own = KINDS[kind]
    cfg = get_config(config)
    heads = cfg.model.roi_heads
    for predictor in heads.get("box_predictors", [heads.get("box_predictor")]):
        predictor.update(test_score_thresh=0.0, test_topk_per_image=6)
        predictor.input_shape.channels = 16
    for box_head in heads.get("box_heads", [heads.get("box_head")]):
        box_head.fc_dims = [16]
    heads.num_classes = 1 if "keypoint_head" in heads else 3
    cfg.model.backbone.out_channels = 16
    cfg.model.backbone.bottom_up.update(stages=L(narrow_stages)())
    cfg.model.backbone.bottom_up.stem.out_channels = 8
    cfg.model.proposal_generator.update(pre_nms_topk=[50, 40], post_nms_topk=[20, 20])
    cfg.model._target_ = f"maskrcnn_ext.{target}"
    own = own if target == "TTARCNN" else [line for line in own if "tta_" not in line]
    torch.manual_seed(0)
    return instantiate(LazyConfig.apply_overrides(cfg, [*own, *overrides]).model).eval()


def weights_of(model, other):
    model.load_state_dict(other.state_dict(), strict=True)
    return model


def image(seed=0, size=SIZE):
    """Smooth, as photographs are: views of it in several sizes look alike."""
    noise = torch.rand(1, 3, 9, 13, generator=torch.Generator().manual_seed(seed)) * 255
    pixels = F.interpolate(noise, size, mode="bicubic")[0].clamp(0, 255)
    return {"image": pixels.round().to(torch.uint8), "height": 2 * size[0], "width": 2 * size[1]}


def raw(model, *images):
    with torch.no_grad():
        return model.inference(list(images), do_postprocess=False)


def assert_same(one, other, **tolerance):
    assert one.image_size == other.image_size
    assert set(one.get_fields()) == set(other.get_fields())
    for name, value in one.get_fields().items():
        mine, theirs = (getattr(found, "tensor", found) for found in (value, other.get(name)))
        torch.testing.assert_close(mine, theirs, **tolerance, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("kind", ["fcn", "both"])
def test_one_view_is_the_plain_model(kind):
    views = ["model.tta_scales=[1]", "model.tta_flip=false"]
    plain = build(kind, target="CompactRCNN")
    model = weights_of(build(kind, *views), plain)
    (found,), (expected,) = raw(model, image()), raw(plain, image())
    assert len(found) == 6
    assert_same(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_view_alone_has_the_fields_of_the_plain_model(kind):
    """Through the merging, too: the view of scale 1 twice changes nothing."""
    plain = build(kind, target="CompactRCNN")
    model = weights_of(build(kind, "model.tta_scales=[1,1]", "model.tta_flip=false"), plain)
    (found,), (expected,) = raw(model, image()), raw(plain, image())
    assert len(found) == 6
    assert_same(found, expected, rtol=1e-4, atol=1e-4)


class Views:
    """Makes Detectron2's TTA see our views."""

    def __init__(self, scales, flip):
        self.scales, self.flip = scales, flip

    def __call__(self, record):
        pixels = record["image"]
        height, width = pixels.shape[1:]
        views = []
        for scale in self.scales:
            h, w = round(height * scale), round(width * scale)
            resized = F.interpolate(pixels[None].float(), (h, w), mode="bilinear", antialias=True)[0]
            resize = NoOpTransform() if (h, w) == (height, width) else ResizeTransform(height, width, h, w)
            for mirrored in [False, True] if self.flip else [False]:
                moves = TransformList([resize, HFlipTransform(w)] if mirrored else [resize])
                seen = resized.flip(-1) if mirrored else resized
                views.append({**record, "image": seen, "transforms": moves})
        return views


def by_detectron2(model, record, scales, flip):
    cfg = SimpleNamespace(
        MODEL=SimpleNamespace(
            KEYPOINT_ON=False,
            LOAD_PROPOSALS=False,
            MASK_ON=model.roi_heads.mask_on,
            ROI_HEADS=SimpleNamespace(NUM_CLASSES=3, NMS_THRESH_TEST=0.5),
        ),
        TEST=SimpleNamespace(DETECTIONS_PER_IMAGE=6),
    )
    cfg.clone = lambda: cfg
    with torch.no_grad():
        return GeneralizedRCNNWithTTA(cfg, model, Views(scales, flip), batch_size=1)([record])[0]["instances"]


@pytest.mark.parametrize(("scales", "flip"), [([1.0], True), ([0.75, 1.0, 1.5], True), ([0.5, 1.25], False)])
@pytest.mark.parametrize("kind", ["fcn", "scoring", "refine", "point_rend", "cascade", "boxes"])
def test_boxes_and_masks_are_detectron2s(kind, scales, flip):
    plain = build(kind, target="CompactRCNN")
    model = weights_of(build(kind, f"model.tta_scales={scales}", f"model.tta_flip={flip}"), plain)
    # Detectron2 merges in the image as stored: here that is the one that the model is given.
    record = {"image": image()["image"], "height": SIZE[0], "width": SIZE[1]}
    with torch.no_grad():
        found = model([record])[0]["instances"]
    expected = by_detectron2(plain, record, scales, flip)
    torch.testing.assert_close(found.pred_boxes.tensor, expected.pred_boxes.tensor, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(found.scores, expected.scores)
    assert torch.equal(found.pred_classes, expected.pred_classes)
    if kind != "boxes":
        assert (found.pred_masks.to_dense() == expected.pred_masks).float().mean() > 0.9999


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_mirrored_image_has_the_mirrored_result(kind):
    model = build(kind, "model.tta_scales=[0.75,1]")
    straight = image()
    mirrored = {**straight, "image": straight["image"].flip(-1)}
    (found,), (other,) = raw(model, straight), raw(model, mirrored)
    assert len(found) > 0
    x0, y0, x1, y1 = other.pred_boxes.tensor.unbind(1)
    other.pred_boxes = Boxes(torch.stack([SIZE[1] - x1, y0, SIZE[1] - x0, y1], dim=1))
    if other.has("pred_masks"):
        other.pred_masks = other.pred_masks.flip(-1)
    if other.has("pred_keypoints"):
        other.pred_keypoint_heatmaps = other.pred_keypoint_heatmaps[:, FLIP].flip(-1)
        points = other.pred_keypoints[:, FLIP]
        # Places are whole pixels of the box from its left, upper corner: a mirror moves them by less than one.
        torch.testing.assert_close(found.pred_keypoints[:, :, 1:], points[:, :, 1:], rtol=1e-3, atol=1e-3)
        assert (found.pred_keypoints[:, :, 0] - (SIZE[1] - points[:, :, 0])).abs().max() < 1
        for each in (found, other):
            each.remove("pred_keypoints")
    assert_same(found, other, rtol=1e-3, atol=1e-3)


def test_keypoints_are_those_of_the_averaged_heatmaps():
    model = build("pose", "model.tta_scales=[1]")
    (found,) = raw(model, image())
    straight = image()["image"]
    heatmaps = []
    for pixels, boxes in (
        (straight, found.pred_boxes.tensor),
        (straight.flip(-1), (SIZE[1] - found.pred_boxes.tensor)[:, [2, 1, 0, 3]]),
    ):
        boxes = boxes.clone()
        boxes[:, [1, 3]] = found.pred_boxes.tensor[:, [1, 3]]
        given = Instances(SIZE, pred_boxes=Boxes(boxes), pred_classes=found.pred_classes)
        plain = build("pose", target="CompactRCNN")
        with torch.no_grad():
            (seen,) = plain.inference([{"image": pixels}], [given], do_postprocess=False)
        heatmaps.append(seen.pred_keypoint_heatmaps)
    expected = (heatmaps[0] + heatmaps[1].flip(-1)[:, FLIP]) / 2
    torch.testing.assert_close(found.pred_keypoint_heatmaps, expected, rtol=1e-4, atol=1e-4)
    assert found.pred_keypoints.shape == (len(found), 5, 3)


def test_results_have_the_size_of_the_input_and_do_not_depend_on_the_batch():
    model = build("fcn")
    first, second = image(0), image(1, size=(48, 80))
    with torch.no_grad():
        together = [output["instances"] for output in model([first, second])]
        alone = [model([each])[0]["instances"] for each in (first, second)]
    for found, expected, given in zip(together, alone, (first, second), strict=True):
        assert found.image_size == (given["height"], given["width"])
        assert isinstance(found.pred_masks, RLEMasks)
        assert found.pred_masks.size == found.image_size
        assert torch.equal(found.pred_boxes.tensor, expected.pred_boxes.tensor)
        assert found.pred_masks.rles == expected.pred_masks.rles


@pytest.mark.parametrize("kind", ["fcn", "scoring", "refine", "point_rend", "both"])
def test_no_detections(kind):
    model = build(kind, "model.roi_heads.box_predictor.test_score_thresh=1.0")
    with torch.no_grad():
        found = model([image()])[0]["instances"]
    assert len(found) == 0
    assert len(found.pred_masks) == 0
    if kind == "both":
        assert found.pred_keypoints.shape == (0, 5, 3)


def test_given_boxes_are_kept():
    model = build("fcn")
    boxes = torch.tensor([[10.0, 12, 50, 40], [30, 5, 90, 60]])
    given = Instances(SIZE, pred_boxes=Boxes(boxes.clone()), pred_classes=torch.tensor([0, 2]))
    with torch.no_grad():
        (found,) = model.inference([image()], [given], do_postprocess=False)
    assert torch.equal(found.pred_boxes.tensor, boxes)
    assert found.pred_masks.shape[0] == 2


def test_the_model_is_not_modified():
    model = build("both")
    heads = model.roi_heads
    raw(model, image())
    assert model.roi_heads is heads
    assert heads.mask_on
    assert heads.keypoint_on


def test_training_equals_the_plain_model():
    plain = build("fcn", target="CompactRCNN")
    assert TTARCNN.forward is type(plain).forward
    assert list(build("fcn").state_dict()) == list(plain.state_dict())


@pytest.mark.parametrize(
    ("kind", "overrides", "message"),
    [
        ("fcn", ["model.tta_scales=[]"], r"tta_scales=\[\]: expected factors above 0"),
        ("fcn", ["model.tta_scales=[1,-1]"], "expected factors above 0"),
        ("fcn", ["model.proposal_generator=null"], "needs model.proposal_generator"),
        (
            "pose",
            ["model.tta_keypoint_flip_indices=null"],
            r"mirrored counterpart of each of the 5 keypoints .*tta_flip=false",
        ),
        ("pose", ["model.tta_keypoint_flip_indices=[0,1,2]"], "mirrored counterpart of each of the 5 keypoints"),
        ("pose", ["model.tta_keypoint_flip_indices=[1,2,0,3,4]"], "mirrored counterpart of each of the 5 keypoints"),
    ],
)
def test_invalid_arguments_raise_one_line(kind, overrides, message):
    with pytest.raises(InputError, match=message) as caught:
        build(kind, *overrides)
    assert "\n" not in str(caught.value)


class FixedSize(TTARCNN):
    """Pads every image to one square, as ViTDet's backbones want it, and cuts what is larger."""

    def preprocess_image(self, batched_inputs):
        (pixels,) = [each["image"].float() for each in batched_inputs]
        height, width = pixels.shape[1:]
        return ImageList(F.pad(pixels, (0, 96 - width, 0, 96 - height))[None], [(height, width)])


def test_a_view_that_the_backbone_would_crop_is_an_error():
    model = build("fcn", "model.tta_scales=[1,1.25]")
    model.__class__ = FixedSize
    with pytest.raises(InputError, match="a view of 120 x 80 does not fit into the 96 x 96") as caught:
        raw(model, image())
    assert "\n" not in str(caught.value)


def test_keypoints_without_flip_need_no_indices():
    model = build("pose", "model.tta_keypoint_flip_indices=null", "model.tta_flip=false", "model.tta_scales=[1,0.5]")
    assert raw(model, image())[0].pred_keypoints.shape[1:] == (5, 3)
