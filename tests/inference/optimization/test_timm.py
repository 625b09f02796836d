"""Detectors on networks of timm predict the same when they are optimized, tiled and augmented."""

import pytest
import torch

from maskrcnn_ext import TTARCNN, Predictor, TiledPredictor
from tests.helpers.timm_models import NETS, detector
from tests.inference.optimization.test_matrix import IMAGE, check

pytest.importorskip("timm")
pytestmark = pytest.mark.usefixtures("one_thread")
QUICK = ("MobileNet", "ViT")
# Distance of boxes in pixels, difference of scores, IoU of all masks together.
LIMITS = {"fp32": (0.01, 1e-4, 0.98), "bf16": (1.0, 0.01, 0.98)}


@pytest.mark.parametrize(
    "family", [pytest.param(family, marks=() if family in QUICK else pytest.mark.slow) for family in NETS]
)
def test_optimized_models_predict_the_same(family):
    check(detector(family), "fp32", "bf16", limits=LIMITS)


def test_tiles_of_an_image_are_predicted():
    part = "model.backbone.bottom_up"
    overrides = [
        f"{part}._target_=maskrcnn_ext.TimmBackbone",
        f"{part}.name=mobilenetv4_conv_small_035",
        f"{part}.pretrained=false",
        f"{part}.pixel_std=[57.375,57.12,58.395]",
        "dataloader.test.mapper.augmentations.0.short_edge_length=64",
        "model.roi_heads.box_predictor.test_score_thresh=0.0",
        "model.roi_heads.box_predictor.test_topk_per_image=5",
        "model.roi_heads.num_classes=2",
    ]
    predictor = Predictor("mask_rcnn_r18_fpn_scratch", "", device="cpu", overrides=overrides, optimize=True)
    image = IMAGE.permute(1, 2, 0).byte().numpy()
    found = TiledPredictor(predictor, tile=64)(image)
    assert found.image_size == (64, 96)
    assert len(found) >= 1


def test_views_of_an_image_are_merged():
    model = detector("MobileNet")
    parts = {name: getattr(model, name) for name in ("backbone", "proposal_generator", "roi_heads")}
    views = TTARCNN(**parts, pixel_mean=[128.0] * 3, pixel_std=[64.0] * 3, tta_scales=[1.0], tta_flip=False).eval()
    with torch.inference_mode():
        (found,), (expected,) = views.inference([{"image": IMAGE}]), model.inference([{"image": IMAGE}])
    assert len(found["instances"]) == len(expected["instances"])
    torch.testing.assert_close(
        found["instances"].pred_boxes.tensor.sort(0)[0], expected["instances"].pred_boxes.tensor.sort(0)[0]
    )
