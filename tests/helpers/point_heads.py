"""Small PointRend heads beside Detectron2's, and batches for them."""

import math

import numpy as np
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.projects import point_rend as reference
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage

from maskrcnn_ext.modeling.mask_heads.implicit_point_rend import ImplicitPointRendMaskHead
from maskrcnn_ext.modeling.mask_heads.point_rend import PointRendMaskHead

SIZE, CHANNELS = 96, 16
STRIDES = {"p2": 4, "p3": 8, "p4": 16, "p5": 32}
HEADS = [PointRendMaskHead, ImplicitPointRendMaskHead]
SMALL = {"fc_dim": 32, "point_fc_dim": 16}


def yacs(head, *, num_classes=80, agnostic=False, channels=CHANNELS, fc_dim=32, point_fc_dim=16, levels=("p2",)):
    """Detectron2's Base-PointRend-RCNN-FPN.yaml or Base-Implicit-PointRend.yaml, but for the sizes."""
    cfg = get_cfg()
    reference.add_pointrend_config(cfg)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = cfg.MODEL.POINT_HEAD.NUM_CLASSES = num_classes
    mask, point = cfg.MODEL.ROI_MASK_HEAD, cfg.MODEL.POINT_HEAD
    mask.CONV_DIM, mask.FC_DIM, mask.POINT_HEAD_ON = channels, fc_dim, True
    mask.POOLER_TYPE, mask.IN_FEATURES, point.IN_FEATURES = "", list(levels), list(levels)
    point.FC_DIM, point.CLS_AGNOSTIC_MASK = point_fc_dim, agnostic
    if head is ImplicitPointRendMaskHead:
        point.NAME, point.SUBDIVISION_STEPS = "ImplicitPointHead", 3
    return cfg


def detectron2_head(head, **kwargs):
    channels = kwargs.get("channels", CHANNELS)
    shapes = {name: ShapeSpec(channels=channels, stride=stride) for name, stride in STRIDES.items()}
    return getattr(reference, head.__name__)(yacs(head, **kwargs), shapes)


def build(head, num_classes=3, channels=CHANNELS, **kwargs):
    shape = ShapeSpec(channels=channels, height=14, width=14)
    return head(shape, num_classes=num_classes, conv_dims=[channels] * 5, **{**SMALL, **kwargs})


def with_contrast(module, seed=0):
    """Layers that are near zero at first get weights that draw masks with both foreground and background."""
    torch.manual_seed(seed)
    for name, parameter in module.named_parameters():
        if "predict" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return module


def pair(head, num_classes, agnostic=False, levels=("p2",)):
    """The two implementations with equal weights."""
    theirs = with_contrast(detectron2_head(head, num_classes=num_classes, agnostic=agnostic, levels=levels))
    ours = build(head, 1 if agnostic else num_classes, num_levels=len(levels))
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def pyramid(seed=1, images=2, channels=CHANNELS):
    torch.manual_seed(seed)
    return {name: torch.randn(images, channels, SIZE // stride, SIZE // stride) for name, stride in STRIDES.items()}


def ellipse(box):
    (x0, y0, x1, y1), angles = box, np.arange(40) / 40 * 2 * math.pi
    points = np.stack([(x0 + x1 + (x1 - x0) * np.cos(angles)) / 2, (y0 + y1 + (y1 - y0) * np.sin(angles)) / 2], axis=1)
    return [points.reshape(-1)]


def batch(counts=(3, 2), num_classes=3, seed=2, polygons=False, training=True):
    """Instances with an ellipse each, and a proposal that is a bit off."""
    torch.manual_seed(seed)
    found = []
    for count in counts:
        corner, size = torch.rand(count, 2) * 40, 20 + torch.rand(count, 2) * 30
        boxes = torch.cat([corner, corner + size], dim=1)
        off = (boxes + torch.rand(count, 4) * 6 - 3).clamp(0, SIZE)
        classes = torch.randint(0, num_classes, (count,))
        image = Instances((SIZE, SIZE))
        if training:
            outlines = [ellipse(box.tolist()) for box in boxes]
            image.proposal_boxes, image.gt_classes = Boxes(off), classes
            image.gt_masks = PolygonMasks(outlines) if polygons else BitMasks.from_polygon_masks(outlines, SIZE, SIZE)
        else:
            image.pred_boxes, image.pred_classes, image.scores = Boxes(off), classes, torch.rand(count)
        found.append(image)
    return found


def step(head, features, instances, seed=3):
    torch.manual_seed(seed)
    with EventStorage() as storage:
        losses = head(features, instances)
        return losses, storage.latest()


CASES = [
    (PointRendMaskHead, 1, False, ["p2"]),
    (PointRendMaskHead, 3, False, ["p2"]),
    (PointRendMaskHead, 3, False, ["p2", "p3"]),
    (ImplicitPointRendMaskHead, 1, False, ["p2"]),
    (ImplicitPointRendMaskHead, 3, False, ["p2"]),
    (ImplicitPointRendMaskHead, 3, True, ["p2"]),
]
