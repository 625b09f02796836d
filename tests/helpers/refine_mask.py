"""Small RefineMask heads, and instances and features for them."""

import cv2
import numpy as np
import torch
from detectron2.layers import ShapeSpec
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from torch.nn import functional as F

from maskrcnn_ext.modeling.mask_heads.refine_mask import RefineMaskHead

SIZE, CHANNELS, CLASSES = 64, 16, 3


def blobs(count, size):
    """(count, size, size) boolean masks: smooth noise, cut in half."""
    noise = F.interpolate(torch.randn(count, 1, 5, 5), size=(size, size), mode="bicubic")[:, 0]
    return noise > noise.flatten(1).median(1).values[:, None, None]


def make_head(*, dims=(CHANNELS, CHANNELS), num_classes=CLASSES, **options):
    shape = ShapeSpec(channels=CHANNELS, height=14, width=14)
    return RefineMaskHead(shape, num_classes=num_classes, conv_dims=list(dims), **options)


def pyramid(levels=(2, 3, 4, 5), images=2):
    return {f"p{level}": torch.rand(images, CHANNELS, SIZE >> level, SIZE >> level) for level in levels}


def boxes(count):
    corner = torch.rand(count, 2) * 20
    return torch.cat([corner, corner + 16 + torch.rand(count, 2) * 20], dim=1)


def proposals(counts, classes=CLASSES):
    result = []
    for count in counts:
        image = Instances((SIZE, SIZE))
        image.proposal_boxes = image.gt_boxes = Boxes(boxes(count))
        image.gt_classes = torch.randint(0, classes, (count,))
        image.gt_masks = BitMasks(blobs(count, SIZE))
        result.append(image)
    return result


def detections(counts, classes=CLASSES):
    result = []
    for count in counts:
        image = Instances((SIZE, SIZE))
        image.pred_boxes = Boxes(boxes(count))
        image.pred_classes = torch.randint(0, classes, (count,))
        image.scores = torch.rand(count)
        result.append(image)
    return result


def train_step(head, features, instances):
    head.train()
    with EventStorage() as storage:
        losses = head(features, instances)
    head.zero_grad()
    sum(losses.values()).backward()
    return losses, storage.latest()


def region_by_cv2(masks, width):
    kernel = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    masks = masks.numpy().astype(np.uint8)
    return np.stack([cv2.dilate(mask, kernel) != cv2.erode(mask, kernel) for mask in masks])
