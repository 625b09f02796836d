"""The traceable function of tensors against Detectron2's inference, and the models that it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.interop.export.graph import Exportable, output_names
from tests.helpers.calibration import images
from tests.helpers.exported_models import detector, exported  # noqa: F401 (fixtures)
from tests.helpers.exporting import build, tensor

GREY = np.full((96, 128, 3), 127, np.uint8)


def raw(model, image):
    """Detectron2's own inference, before anything is pasted."""
    with torch.no_grad():
        return model.inference([{"image": tensor(image)}], do_postprocess=False)[0]


@pytest.mark.parametrize("image", [*images(), GREY], ids=lambda image: "x".join(map(str, image.shape)))
def test_the_graph_is_detectron2s_inference(detector, image):
    model, _ = detector
    expected = raw(model, image)
    with torch.no_grad():
        boxes, scores, classes, masks = Exportable(model)(tensor(image))
    assert len(expected) == 100
    torch.testing.assert_close(boxes, expected.pred_boxes.tensor, rtol=0, atol=1e-4)
    torch.testing.assert_close(scores, expected.scores, rtol=0, atol=1e-6)
    assert torch.equal(classes, expected.pred_classes)
    torch.testing.assert_close(masks, expected.pred_masks[:, 0], rtol=0, atol=1e-5)


def test_the_graph_leaves_the_models_mode_alone(detector, exported):
    model, _ = detector
    exported("onnx")
    assert not any(module.training for module in model.modules())


def test_without_proposals_there_are_no_detections(detector, exported):
    """Infinite objectness, as of a model that has diverged, is no proposal."""
    model, _ = detector
    logits = model.proposal_generator.rpn_head.objectness_logits
    bias = logits.bias.detach().clone()
    with torch.no_grad():
        logits.bias.fill_(torch.nan)
        try:
            outputs = Exportable(model)(tensor(images()[0]))
            assert len(raw(model, images()[0])) == 0
        finally:
            logits.bias.copy_(bias)
    assert [len(output) for output in outputs] == [0, 0, 0, 0]


def test_a_part_that_selects_boxes_in_its_own_way_is_refused():
    class OwnModel(nn.Module):
        pass

    with pytest.raises(InputError, match=r"OwnModel cannot be exported: model must be a GeneralizedRCNN"):
        Exportable(OwnModel())


def test_backbones_of_one_size_are_refused(detector, monkeypatch):
    """ViTDet's, which Detectron2's main branch alone has."""
    model, _ = detector
    monkeypatch.setattr(type(model.backbone), "padding_constraints", {"square_size": 64}, raising=False)
    with pytest.raises(InputError, match="FPN cannot be exported: it takes only squares of one size"):
        Exportable(model)


def test_outputs_of_keypoint_models():
    model, _ = build("keypoint_rcnn_r18_fpn_scratch", settings=[])
    assert output_names(model) == ("boxes", "scores", "classes", "keypoint_heatmaps")
    with torch.no_grad():
        *_, heatmaps = Exportable(model)(tensor(images()[0]))
    assert heatmaps.shape[1:] == (17, 56, 56)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            "model.roi_heads.box_pooler._target_=maskrcnn_ext.ROIWarpPooler",
            r"ROIWarpPooler \(model\.roi_heads\.box_pooler\)",
        ),
        (
            "model.roi_heads.mask_head._target_=maskrcnn_ext.PointRendMaskHead model.roi_heads.mask_pooler=null",
            "PointRendMaskHead, which samples the feature maps itself",
        ),
    ],
)
def test_parts_that_take_one_image_are_named(overrides, message):
    model, _ = build(overrides=overrides.split())
    with pytest.raises(InputError, match=f"--batch: {message}.* one image at a time"):
        Exportable(model, batched=True)
