"""Every mask head learns: from random weights it overfits eight real images. `pytest -s` prints the table of projects/mask_heads."""

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from detectron2.layers import paste_masks_in_image
from detectron2.structures import BitMasks, ImageList, Instances
from detectron2.utils.events import EventStorage

import maskrcnn_ext
from maskrcnn_ext.modeling.parts import MASK_HEADS

STEPS, SIZE, MOST_NUCLEI = 120, 128, 6


def crops(names="nuclei_train"):
    """Eight crops of 128 x 128, of different images, with two to six nuclei that lie wholly inside: (image, masks) pairs."""
    from detectron2.data.detection_utils import read_image
    from pycocotools import mask as rle

    found = []
    for record in maskrcnn_ext.get_dataset_dicts(names):
        image = read_image(record["file_name"], "BGR")
        if min(image.shape[:2]) < SIZE:
            continue
        masks = np.stack([rle.decode(a["segmentation"]) for a in record["annotations"]]).astype(bool)
        top, left = (image.shape[0] - SIZE) // 2, (image.shape[1] - SIZE) // 2
        window = masks[:, top : top + SIZE, left : left + SIZE]
        inside = window.sum((1, 2)) == masks.sum((1, 2))
        if 2 <= inside.sum() <= MOST_NUCLEI and window[inside].sum((1, 2)).min() >= 100:
            found.append((image[top : top + SIZE, left : left + SIZE], window[inside]))
        if len(found) == 8:
            return found
    raise AssertionError("too few images")


@pytest.fixture(scope="module")
def batch(real_data):
    from maskrcnn_ext.data.registry.resolve import register_named_datasets

    register_named_datasets()
    images, instances = [], []
    for image, masks in crops():
        images.append(torch.as_tensor(image.transpose(2, 0, 1).astype("float32")) / 57 - 1)
        per_image = Instances((SIZE, SIZE))
        per_image.gt_masks = BitMasks(torch.as_tensor(masks))
        per_image.gt_classes = torch.zeros(len(masks), dtype=torch.int64)
        per_image.proposal_boxes = per_image.gt_boxes = per_image.gt_masks.get_bounding_boxes()
        instances.append(per_image)
    return ImageList.from_tensors(images), instances


def mean_iou(instances, predictions):
    ious = []
    for truth, predicted in zip(instances, predictions, strict=True):
        masks = paste_masks_in_image(predicted.pred_masks[:, 0], predicted.pred_boxes, (SIZE, SIZE))
        target = truth.gt_masks.tensor
        ious += ((masks & target).sum((1, 2)) / (masks | target).sum((1, 2))).tolist()
    return sum(ious) / len(ious)


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize("part", MASK_HEADS, ids=lambda part: part.name)
def test_a_head_overfits_eight_images(part, batch):
    torch.manual_seed(0)
    images, instances = batch
    cfg = maskrcnn_ext.get_config("mask_rcnn_r18_fpn_scratch.py").model
    cfg.backbone.out_channels = 64
    backbone = instantiate(cfg.backbone)
    node = cfg.roi_heads.mask_head
    node.update(_target_=f"maskrcnn_ext.{part.name}", num_classes=1, conv_dims=[64] * 5)
    if part.name == "ImplicitPointRendMaskHead":
        node.fc_dim = 128  # its last layer has as many weights as this times all parameters of a RoI's network
    if part.name == "PatchDCTMaskHead":
        node.patch_dim = 128
    head = instantiate(node)
    pooler = None if part.pyramid else instantiate(cfg.roi_heads.mask_pooler)

    def run(boxed):
        features = {name: backbone_features[name] for name in ("p2", "p3", "p4", "p5")}
        boxes = [i.proposal_boxes if i.has("proposal_boxes") else i.pred_boxes for i in boxed]
        return head(features if pooler is None else pooler(list(features.values()), boxes), boxed)

    modules = torch.nn.ModuleList([backbone, head])
    optimizer = torch.optim.AdamW(modules.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=STEPS)
    with EventStorage():
        for _ in range(STEPS):
            backbone_features = backbone(images.tensor)
            loss = sum(run(instances).values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    modules.eval()
    detections = []
    for truth in instances:
        found = Instances(truth.image_size)
        found.pred_boxes, found.pred_classes = truth.proposal_boxes, truth.gt_classes
        found.scores = torch.ones(len(truth))
        detections.append(found)
    with torch.no_grad():
        backbone_features = backbone(images.tensor)
        iou = mean_iou(instances, run(detections))
    print(f"\n| {part.name} | {STEPS} | {iou:.3f} |")
    assert iou >= 0.85
