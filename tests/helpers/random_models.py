"""Detectron2 models of random weights that detect objects, as trained ones do."""

import numpy as np
import torch
from detectron2.config import instantiate
from detectron2.layers import FrozenBatchNorm2d

from maskrcnn_ext import get_config

NORMS = (torch.nn.BatchNorm2d, FrozenBatchNorm2d)


INPUTS = [
    {"image": torch.from_numpy(np.random.default_rng(side).integers(0, 255, (3, side, 160)).astype(np.float32))}
    for side in (96, 120)
]


@torch.no_grad()
def spread(model):
    """Sets random weights so that activations are about 1 and the outputs of the last layers differ between positions."""
    generator = torch.Generator().manual_seed(0)
    last = {"objectness_logits": 1.0, "anchor_deltas": 0.2, "cls_score": 2.0, "bbox_pred": 0.5, "predictor": 1.0}
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in last and hasattr(module, "weight"):
            scale = last[name.rpartition(".")[2]] / module.weight[0].numel() ** 0.5
            module.weight.normal_(0, 4 * scale, generator=generator)

    def take(norm, arguments):
        values = arguments[0]
        if values.numel():
            norm.running_mean.copy_(values.mean((0, 2, 3)))
            norm.running_var.copy_(values.var((0, 2, 3), unbiased=False) + 1e-3)

    hooks = [norm.register_forward_pre_hook(take) for norm in model.modules() if isinstance(norm, NORMS)]
    model.eval().inference(INPUTS[:1])
    for hook in hooks:
        hook.remove()
    return model


def build(config, *, detects=True, **changes):
    """Returns the small model of a shipped config, with changes to the configs of its RoI heads; it may detect nothing."""
    torch.manual_seed(0)
    cfg = get_config(config).model
    heads = cfg.roi_heads
    for predictor in heads.box_predictors if "box_predictors" in heads else [heads.box_predictor]:
        predictor.update(test_score_thresh=0.02, test_topk_per_image=20)
    cfg.proposal_generator.update(pre_nms_topk=[200, 200], post_nms_topk=[60, 60])
    if "mask_head" in heads:  # the most of the time
        heads.mask_head.conv_dims = heads.mask_head.conv_dims[:2]
    for key, value in changes.items():
        heads[key].update(value)
    if changes.get("mask_head", {}).get("_target_", "").endswith("PointRendMaskHead"):
        heads.mask_pooler = None
    model = instantiate(cfg)
    return spread(model) if detects else model.eval()


MODELS = {
    "FPN": ("mask_rcnn_r18_fpn_scratch.py", {}),
    "cascade": ("cascade_mask_rcnn_r18_fpn_scratch.py", {}),
    "keypoints": ("keypoint_rcnn_r18_fpn_scratch.py", {}),
    "boxes": ("faster_rcnn_r18_fpn_scratch.py", {}),
    "boundary head": ("mask_rcnn_r18_fpn_scratch.py", {"mask_head": {"_target_": "maskrcnn_ext.BoundaryMaskHead"}}),
    "PointRend": ("mask_rcnn_r18_fpn_scratch.py", {"mask_head": {"_target_": "maskrcnn_ext.PointRendMaskHead"}}),
    "precise pooler": ("mask_rcnn_r18_fpn_scratch.py", {"box_pooler": {"_target_": "maskrcnn_ext.PreciseROIPooler"}}),
}


FPN = "mask_rcnn_r18_fpn_scratch.py"
