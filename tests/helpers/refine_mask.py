"""Small RefineMask heads, instances and features for them, and RefineMask's boundaries and losses in NumPy."""

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


def make_head(*, form=RefineMaskHead, dims=(CHANNELS, CHANNELS), num_classes=CLASSES, **options):
    shape = ShapeSpec(channels=CHANNELS, height=14, width=14)
    return form(shape, num_classes=num_classes, conv_dims=list(dims), **options)


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


def near_boundary(masks, width):
    """The pixels (R, H, W) for which over a tenth of the window around them has the other value; outside the grid is background."""
    masks, side = np.asarray(masks).astype(bool), 2 * width + 1
    padded = np.pad(masks, ((0, 0), (width, width), (width, width)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(1, 2))
    return (windows != masks[..., None, None]).sum(axis=(-1, -2)) / side**2 > 0.1


def doubled(maps):
    """Float64 maps (R, S, S) interpolated to (R, 2 S, 2 S): the corners stay at the corners."""
    maps = np.asarray(maps, dtype=np.float64)
    places = np.linspace(0, maps.shape[-1] - 1, 2 * maps.shape[-1])
    low = np.minimum(places.astype(int), maps.shape[-1] - 2)
    matrix = np.zeros((len(places), maps.shape[-1]))
    matrix[np.arange(len(places)), low] = 1 - (places - low)
    matrix[np.arange(len(places)), low + 1] += places - low
    return matrix @ maps @ matrix.T


def cross_entropy(logits, targets):
    return np.logaddexp(0, logits) - logits * targets


def reference_losses(logits, targets, width=2, start=1):
    """The loss of each mask, and the final logits, of RefineMask's section 3.

    Args:
        logits: what the stages predict, float64 arrays (R, S, S).
        targets: of the same sizes, booleans.
    """
    merged, losses = [], []
    for stage, (mine, target) in enumerate(zip(logits, targets, strict=True)):
        pixels = cross_entropy(mine, target)
        if stage <= start:
            losses.append(pixels.mean())
            merged.append(mine)
            continue
        near = near_boundary(merged[-1] >= 0, width) | near_boundary(targets[stage - 1], width)
        losses.append(pixels[doubled(near) >= 0.5].mean())
        replaced = doubled(near_boundary(merged[-1] >= 0, 1)) >= 0.5
        merged.append(np.where(replaced, mine, doubled(merged[-1])))
    return losses, merged[-1]
