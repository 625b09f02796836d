"""A Mask R-CNN as MMDetection defines it, with its parameter names, in plain torch; written from its documentation and papers."""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torchvision.ops import batched_nms, roi_align

from tests.helpers.mmdet_backbones import NETS, Part

STRIDES = (4, 8, 16, 32, 64)
BGR_MEAN = np.array([103.53, 116.28, 123.675], np.float32)
BGR_STD = np.array([57.375, 57.12, 58.395], np.float32)


# Of the stages of a cascade.
STDS = ((0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067))


class ConvModule(nn.Module):
    def __init__(self, *arguments, norm=False, **keywords):
        super().__init__()
        self.conv = nn.Conv2d(*arguments, bias=not norm, **keywords)
        if norm:
            self.bn = nn.BatchNorm2d(self.conv.out_channels)

    def forward(self, x):
        x = self.conv(x)
        return self.bn(x) if hasattr(self, "bn") else x


class MMDetMaskRCNN(nn.Module):
    """R, G, B of unit deviation and strides in the 3x3 convolutions, or in Caffe's style B, G, R and strides in the 1x1.

    A cascade has three box heads of two convolutions and one fully connected layer, with a box per class or one for all, and three
    mask heads.
    """

    def __init__(
        self,
        num_classes,
        style,
        backbone="resnet50",
        scale=(192, 128),
        *,
        cascade=False,
        agnostic=False,
        masks=True,
        order=None,
        proposals=1000,
        detections=100,
    ):
        super().__init__()
        self.style, self.scale, self.num_classes = style, scale, num_classes
        self.proposals, self.detections = proposals, detections
        self.order = order or ("BGR" if style == "caffe" else "RGB")
        if backbone in NETS:
            self.backbone = NETS[backbone]()
            channels = self.backbone.channels
        else:
            self.backbone = getattr(torchvision.models, backbone)(weights=None)
            del self.backbone.fc
            for layer in (self.backbone.layer2, self.backbone.layer3, self.backbone.layer4):
                if style == "caffe":
                    layer[0].conv1.stride, layer[0].conv2.stride = layer[0].conv2.stride, (1, 1)
            channels = (256, 512, 1024, 2048)
        self.neck = Part(
            lateral_convs=nn.ModuleList(ConvModule(c, 256, 1) for c in channels),
            fpn_convs=nn.ModuleList(ConvModule(256, 256, 3, padding=1) for _ in channels),
        )
        self.rpn_head = Part(
            rpn_conv=nn.Conv2d(256, 256, 3, padding=1), rpn_cls=nn.Conv2d(256, 3, 1), rpn_reg=nn.Conv2d(256, 12, 1)
        )
        if cascade:
            boxes = nn.ModuleList(self.convolutional_box_head(agnostic) for _ in STDS)
            self.roi_head = Part(bbox_head=boxes)
            if masks:
                self.roi_head.mask_head = nn.ModuleList(self.mask_head() for _ in STDS)
            return
        head = Part(
            shared_fcs=nn.ModuleList([nn.Linear(256 * 7 * 7, 1024), nn.Linear(1024, 1024)]),
            fc_cls=nn.Linear(1024, num_classes + 1),
            fc_reg=nn.Linear(1024, 4 * num_classes),
        )
        self.roi_head = Part(bbox_head=head, mask_head=self.mask_head())

    def convolutional_box_head(self, agnostic):
        return Part(
            shared_convs=nn.ModuleList(ConvModule(before, 32, 3, padding=1, norm=True) for before in (256, 32)),
            shared_fcs=nn.ModuleList([nn.Linear(32 * 7 * 7, 128)]),
            fc_cls=nn.Linear(128, self.num_classes + 1),
            fc_reg=nn.Linear(128, 4 if agnostic else 4 * self.num_classes),
        )

    def mask_head(self):
        return Part(
            convs=nn.ModuleList(ConvModule(256, 256, 3, padding=1) for _ in range(4)),
            upsample=nn.ConvTranspose2d(256, 256, 2, stride=2),
            conv_logits=nn.Conv2d(256, self.num_classes, 1),
        )

    def forward(self, image):
        """Takes B, G, R pixels (H, W, 3); returns boxes (in the image as stored), scores, labels and mask probabilities (R, 28, 28)."""
        height, width = image.shape[:2]
        factor = min(max(self.scale) / max(height, width), min(self.scale) / min(height, width))
        size = int(height * factor + 0.5), int(width * factor + 0.5)
        pixels = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR).astype(np.float32)
        pixels = (pixels - BGR_MEAN) / (BGR_STD if self.style == "pytorch" else 1)
        if self.order == "RGB":
            pixels = pixels[:, :, ::-1]
        padded = np.zeros((math.ceil(size[0] / 32) * 32, math.ceil(size[1] / 32) * 32, 3), np.float32)
        padded[: size[0], : size[1]] = pixels
        levels = self.pyramid(torch.from_numpy(padded.transpose(2, 0, 1))[None])
        proposals = self.propose(levels, size)
        boxes, scores, labels = self.detect(levels, proposals, size)
        masks = self.masks(levels, boxes, labels)
        return boxes / boxes.new_tensor([size[1] / width, size[0] / height] * 2), scores, labels, masks

    def pyramid(self, x):
        net = self.backbone
        if type(net) in NETS.values():
            stages = net(x)
        else:
            x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
            stages = []
            for layer in (net.layer1, net.layer2, net.layer3, net.layer4):
                x = layer(x)
                stages.append(x)
        sums = [lateral.conv(stage) for lateral, stage in zip(self.neck.lateral_convs, stages, strict=True)]
        for index in (3, 2, 1):
            sums[index - 1] = sums[index - 1] + F.interpolate(
                sums[index], size=sums[index - 1].shape[-2:], mode="nearest"
            )
        levels = [conv.conv(one) for conv, one in zip(self.neck.fpn_convs, sums, strict=True)]
        return [*levels, levels[-1][:, :, ::2, ::2]]

    def propose(self, levels, size):
        boxes, scores, numbers = [], [], []
        for number, (level, stride) in enumerate(zip(levels, STRIDES, strict=True)):
            hidden = F.relu(self.rpn_head.rpn_conv(level))
            probability = self.rpn_head.rpn_cls(hidden)[0].permute(1, 2, 0).reshape(-1).sigmoid()
            deltas = self.rpn_head.rpn_reg(hidden)[0].permute(1, 2, 0).reshape(-1, 4)
            anchors = []
            for y in range(level.shape[2]):
                for x in range(level.shape[3]):
                    for ratio in (0.5, 1.0, 2.0):
                        w, h = 8 * stride / math.sqrt(ratio), 8 * stride * math.sqrt(ratio)
                        cx, cy = x * stride, y * stride
                        anchors.append([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])
            best = probability.topk(min(1000, len(probability))).indices
            boxes.append(decode(torch.tensor(anchors)[best], deltas[best], (1, 1, 1, 1), size))
            scores.append(probability[best])
            numbers.append(torch.full_like(best, number))
        boxes, scores, numbers = torch.cat(boxes), torch.cat(scores), torch.cat(numbers)
        valid = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        boxes, scores, numbers = boxes[valid], scores[valid], numbers[valid]
        return boxes[batched_nms(boxes, scores, numbers, 0.7)[: self.proposals]]

    def pool(self, levels, boxes, size):
        side = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
        chosen = (side / 56 + 1e-6).log2().floor().clamp(0, 3).long()
        pooled = boxes.new_zeros(len(boxes), 256, size, size)
        for number in range(4):
            rois = boxes[chosen == number]
            scale = 1 / STRIDES[number]
            pooled[chosen == number] = roi_align(levels[number], [rois], size, scale, sampling_ratio=0, aligned=True)
        return pooled

    def detect(self, levels, proposals, size):
        heads = self.roi_head.bbox_head
        heads = list(heads) if isinstance(heads, nn.ModuleList) else [heads]
        logits = []
        for stage, (head, stds) in enumerate(zip(heads, STDS, strict=False)):
            x = self.pool(levels, proposals, 7)
            for layer in getattr(head, "shared_convs", ()):
                x = F.relu(layer(x))
            x = x.flatten(1)
            for layer in head.shared_fcs:
                x = F.relu(layer(x))
            logits.append(head.fc_cls(x))
            deltas = head.fc_reg(x)
            deltas = deltas.view(len(x), deltas.shape[1] // 4, 4)
            anchors = proposals[:, None].expand_as(deltas).reshape(-1, 4)
            boxes = decode(anchors, deltas.reshape(-1, 4), stds, size).view_as(deltas)
            if stage + 1 < len(heads):
                best = logits[-1][:, :-1].argmax(1) if boxes.shape[1] > 1 else torch.zeros(len(boxes)).long()
                proposals = boxes[torch.arange(len(boxes)), best]
        scores = (sum(logits) / len(logits)).softmax(1)[:, :-1]
        rows, labels = (scores > 0.05).nonzero(as_tuple=True)
        boxes, scores = boxes.expand(-1, self.num_classes, 4)[rows, labels], scores[rows, labels]
        kept = batched_nms(boxes, scores, labels, 0.5)[: self.detections]
        return boxes[kept], scores[kept], labels[kept]

    def masks(self, levels, boxes, labels):
        if not hasattr(self.roi_head, "mask_head"):
            return None
        heads = self.roi_head.mask_head
        heads = list(heads) if isinstance(heads, nn.ModuleList) else [heads]
        found = 0
        for head in heads:
            x = self.pool(levels, boxes, 14)
            for layer in head.convs:
                x = F.relu(layer(x))
            logits = head.conv_logits(F.relu(head.upsample(x)))
            found = found + logits[torch.arange(len(labels)), labels].sigmoid()
        return found / len(heads)


def decode(anchors, deltas, stds, size):
    """Delta XYWH coder: shifts in sizes of the anchor, logarithms of scales limited to 1000 / 16, clipped to the image."""
    deltas = deltas * deltas.new_tensor(stds)
    limit = abs(math.log(16 / 1000))
    centres, sides = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]
    centres = centres + deltas[:, :2] * sides
    sides = sides * deltas[:, 2:].clamp(-limit, limit).exp()
    boxes = torch.cat([centres - sides / 2, centres + sides / 2], 1)
    return torch.stack(
        [
            boxes[:, 0].clamp(0, size[1]),
            boxes[:, 1].clamp(0, size[0]),
            boxes[:, 2].clamp(0, size[1]),
            boxes[:, 3].clamp(0, size[0]),
        ],
        1,
    )
