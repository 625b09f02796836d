"""MMDetection's models with random weights, and their comparison with imported ones."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from maskrcnn_ext.inference.predictor import Predictor
from tests.helpers.calibration import calibrate, images, matched
from tests.helpers.mmdet_reference import MMDetMaskRCNN

NAMES = ("cat", "dog", "owl", "cow")


def saved(folder, state, **more):
    torch.save({"state_dict": state, **more}, folder / "source.pth")
    return folder / "source.pth"


def reference(style, **options):
    """A calibrated MMDetMaskRCNN."""
    torch.manual_seed(0)
    model = MMDetMaskRCNN(len(NAMES), style, **options)
    for norm in model.modules():
        if isinstance(norm, nn.LayerNorm):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.2)
    rpn = model.rpn_head
    boxes, masks = ([*head] if isinstance(head, nn.ModuleList) else [head] for head in model.roi_head.children())
    calibrate(
        model,
        lambda shown: [model.pyramid(torch.from_numpy(image).permute(2, 0, 1)[None].float() - 110) for image in shown],
        objectness=rpn.rpn_cls,
        deltas=rpn.rpn_reg,
        scores=boxes[0].fc_cls,
        box_deltas=boxes[0].fc_reg,
        mask_logits=masks[0].conv_logits,
    )
    with torch.no_grad():  # the later stages of a cascade are like the first, as those of a trained one
        for head in boxes[1:] + masks[1:]:
            for own, first in zip(head.parameters(), (boxes if head in boxes else masks)[0].parameters(), strict=True):
                own.copy_(first + 0.1 * first.std() * torch.randn_like(own) if len(own) > 1 else first)
    return model


@torch.no_grad()
def assert_same(model, folder):
    key = "dataloader.test.mapper.augmentations.0"
    predictor = Predictor(
        folder / "config.yaml", device="cpu", overrides=[f"{key}.short_edge_length=128", f"{key}.max_size=192"]
    )
    for image in images():
        boxes, scores, labels, masks = model(image)
        given = predictor.prepare(predictor.pixels(image))
        (found,) = predictor.model.inference([given], do_postprocess=False)
        found.pred_boxes.scale(given["width"] / found.image_size[1], given["height"] / found.image_size[0])
        order, difference = matched(found.pred_boxes.tensor, found.pred_classes, boxes, labels)
        assert len(order) > 20
        assert difference < 5e-3
        np.testing.assert_allclose(found.scores[order], scores, atol=1e-5)
        if masks is not None:
            np.testing.assert_allclose(found.pred_masks[order, 0], masks, atol=1e-4)
    return predictor
