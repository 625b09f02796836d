"""Run folders with random weights that detect many objects, written without a training."""

import numpy as np
import torch
from detectron2.config import instantiate

from maskrcnn_ext.config.config_yaml import save_config
from maskrcnn_ext.config.zoo import load_config

# Factor of the last layers' weights.
SPREAD = 12.0


def make_run(folder, spec, *overrides, config="mask_rcnn_r18_fpn_scratch.py", side=64):
    """Writes config.yaml and model_final.pth; images are resized to `side`."""
    keys = {
        "dataloader.test.dataset.names": spec,
        "model.backbone.out_channels": 32,
        "model.roi_heads.num_classes": 5,
        "model.proposal_generator.pre_nms_topk": [100, 100],
        "model.proposal_generator.post_nms_topk": [50, 50],
        "model.roi_heads.box_predictor.test_score_thresh": 0.02,
        "model.roi_heads.box_predictor.test_topk_per_image": 8,
        "dataloader.test.mapper.augmentations.0.short_edge_length": side,
        "dataloader.test.mapper.augmentations.0.max_size": 4 * side,
    }
    cfg = load_config(config, [*(f"{key}={value}" for key, value in keys.items()), *overrides])
    torch.manual_seed(0)
    model = instantiate(cfg.model)
    with torch.no_grad():
        # Scores and boxes that differ, also between images.
        model.roi_heads.box_predictor.cls_score.weight.mul_(SPREAD)
        model.roi_heads.box_predictor.bbox_pred.weight.mul_(SPREAD)
        if model.roi_heads.mask_on:
            model.roi_heads.mask_head.predictor.weight.mul_(SPREAD * 30)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"model": model.state_dict(), "iteration": 0}, folder / "model_final.pth")
    (folder / "last_checkpoint").write_text("model_final.pth")
    save_config(cfg, folder / "config.yaml")
    return folder


def same(one, other, atol=1e-4, masks=True):
    """Whether two predictions of an image are equal: masks bit for bit, numbers up to rounding."""
    assert one.image_size == other.image_size
    assert one.pred_classes.tolist() == other.pred_classes.tolist()
    np.testing.assert_allclose(one.pred_boxes.tensor.numpy(), other.pred_boxes.tensor.numpy(), atol=atol)
    np.testing.assert_allclose(one.scores.numpy(), other.scores.numpy(), atol=atol)
    assert one.has("pred_masks") == other.has("pred_masks")
    if masks and one.has("pred_masks"):
        assert one.pred_masks.rles == other.pred_masks.rles
