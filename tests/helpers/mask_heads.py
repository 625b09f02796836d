"""Small mask heads, and instances and features for them."""

import torch
from detectron2.layers import ShapeSpec
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks

import maskrcnn_ext
from maskrcnn_ext.modeling.parts import MASK_HEADS

SHAPE = ShapeSpec(channels=16, height=14, width=14)
SMALL = {"num_classes": 3, "conv_dims": [16, 16]}
GRID_HEADS = ["FCNMaskHead", "MLPMaskHead", "BoundaryMaskHead", "PointRendMaskHead", "RefineMaskHead"]
PYRAMID = {part.name for part in MASK_HEADS if part.pyramid}


def small_options(name):
    """The options that make the wide layers of a head small."""
    if name == "PatchDCTMaskHead":
        return {"patch_dim": 16}
    return {"fc_dim": 16, "point_fc_dim": 8} if "PointRend" in name else {}


def build(name, **options):
    torch.manual_seed(0)
    return getattr(maskrcnn_ext, name)(SHAPE, **{**SMALL, **small_options(name), **options})


def truth(counts=(3, 2), *, polygons=False):
    """Foreground proposals with ground truth, as RoI heads pass them to a mask head in training."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for count in counts:
        image = Instances((64, 64))
        corners = torch.rand(count, 2, generator=generator) * 20
        sizes = torch.rand(count, 2, generator=generator) * 20 + 18
        image.proposal_boxes = Boxes(torch.cat([corners, corners + sizes], dim=1))
        image.gt_boxes = image.proposal_boxes
        image.gt_classes = torch.randint(0, 3, (count,), generator=generator)
        inner = [(x0 + 3, y0 + 2, x1 - 4, y1 - 3) for x0, y0, x1, y1 in image.proposal_boxes.tensor.tolist()]
        outlines = [[[x0, y0, x1, y0, x1, y1, x0, y1]] for x0, y0, x1, y1 in inner]
        image.gt_masks = PolygonMasks(outlines) if polygons else BitMasks.from_polygon_masks(outlines, 64, 64)
        found.append(image)
    return found


def detections(counts=(3, 2)):
    found = []
    for image in truth(counts):
        detected = Instances((64, 64), pred_boxes=image.proposal_boxes, pred_classes=image.gt_classes)
        detected.scores = torch.linspace(0.9, 0.5, len(image))
        found.append(detected)
    return found


def features(name, count=5):
    torch.manual_seed(3)
    if name in PYRAMID:
        return {f"p{level}": torch.rand(2, 16, 64 // 2**level, 64 // 2**level) for level in range(2, 6)}
    return torch.rand(count, 16, 14, 14)
