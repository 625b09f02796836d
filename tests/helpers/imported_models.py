"""Detectors of other frameworks with random weights, as `import-weights` writes them."""

from __future__ import annotations

import json

import torch
from detectron2.config import instantiate
from torchvision.models import detection

from maskrcnn_ext.interop.weights.matterport import convert as matterport
from maskrcnn_ext.interop.weights.torchvision import convert as source
from tests.helpers.calibration import calibrate
from tests.helpers.keras_maskrcnn import SETTINGS, Weights, write_h5

TORCHVISION = {"min_size": 160, "max_size": 256}


def torchvision_model(name):
    """One of torchvision's builders, calibrated."""
    torch.manual_seed(0)
    model = getattr(detection, name)(weights=None, weights_backbone=None, **TORCHVISION)
    heads, rpn = model.roi_heads, model.rpn.head
    return calibrate(
        model,
        lambda shown: model([torch.from_numpy(image).permute(2, 0, 1).float() / 255 for image in shown]),
        objectness=rpn.cls_logits,
        deltas=rpn.bbox_pred,
        scores=heads.box_predictor.cls_score,
        box_deltas=heads.box_predictor.bbox_pred,
        mask_logits=heads.mask_predictor.mask_fcn_logits if heads.has_mask() else None,
    )


def from_torchvision(name, folder):
    """Returns the imported model in evaluation mode, and its mapper."""
    torch.save(torchvision_model(name).state_dict(), folder / "source.pth")
    converted = source.convert(folder / "source.pth")
    resize = converted.config.dataloader.test.mapper.augmentations[0]
    resize.update(short_edge_length=TORCHVISION["min_size"], max_size=TORCHVISION["max_size"])
    return _built(converted)


def from_matterport(image, folder, **settings):
    """As :func:`from_torchvision`; calibrated with an image (H, W, 3) uint8."""
    settings = {**SETTINGS, **settings}
    write_h5(folder / "source.h5", Weights(settings).calibrate(settings, image))
    (folder / "settings.json").write_text(json.dumps(settings))
    return _built(matterport.convert(folder / "source.h5", config=folder / "settings.json"))


def _built(converted):
    model = instantiate(converted.config.model)
    model.load_state_dict(converted.state)
    return model.eval(), instantiate(converted.config.dataloader.test.mapper)
