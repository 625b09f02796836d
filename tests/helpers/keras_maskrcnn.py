"""Keras's Mask R-CNN (Matterport) in float64, from its published description, with random weights; and Keras's files."""

import math

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional as F

EPSILON = 1e-3
BLOCKS = {"resnet50": [3, 4, 6, 3], "resnet101": [3, 4, 23, 3]}
SETTINGS = {
    "NAME": "tiny",
    "BACKBONE": "resnet50",
    "NUM_CLASSES": 4,
    "TOP_DOWN_PYRAMID_SIZE": 32,
    "FPN_CLASSIF_FC_LAYERS_SIZE": 48,
    "IMAGE_RESIZE_MODE": "square",
    "IMAGE_MIN_DIM": 96,
    "IMAGE_MAX_DIM": 128,
    "RPN_ANCHOR_SCALES": [8, 16, 32, 64, 128],
    "RPN_ANCHOR_RATIOS": [0.5, 1, 2],
    "POST_NMS_ROIS_INFERENCE": 60,
    "PRE_NMS_LIMIT": 900,
    "DETECTION_MIN_CONFIDENCE": 0.35,
    "DETECTION_MAX_INSTANCES": 30,
}


class Weights:
    """Random weights, layer -> name -> array, in Keras's shapes and order."""

    def __init__(self, settings, seed=0):
        self.rng = np.random.default_rng(seed)
        self.layers = {}
        pyramid, fc, classes = (
            settings[k] for k in ("TOP_DOWN_PYRAMID_SIZE", "FPN_CLASSIF_FC_LAYERS_SIZE", "NUM_CLASSES")
        )
        anchors = len(settings["RPN_ANCHOR_RATIOS"])
        self.conv("conv1", 7, 3, 64)
        self.norm("bn_conv1", 64)
        channels = 64
        for stage, blocks in enumerate(BLOCKS[settings["BACKBONE"]], 2):
            inner = 64 << (stage - 2)
            for block in range(blocks):
                name = f"{stage}{'abcdefghijklmnopqrstuvw'[block]}_branch"
                shapes = {"2a": (1, channels, inner), "2b": (3, inner, inner), "2c": (1, inner, 4 * inner)}
                for branch, shape in {**shapes, **({"1": (1, channels, 4 * inner)} if block == 0 else {})}.items():
                    self.conv(f"res{name}{branch}", *shape)
                    self.norm(f"bn{name}{branch}", shape[2], gamma=0.3 if branch == "2c" else 1.0)
                channels = 4 * inner
        for level in range(2, 6):
            self.conv(f"fpn_c{level}p{level}", 1, 64 << level, pyramid, gain=0.5)
            self.conv(f"fpn_p{level}", 3, pyramid, pyramid)
        self.conv("rpn_conv_shared", 3, pyramid, 512)
        self.conv("rpn_class_raw", 1, 512, 2 * anchors, gain=0.3)  # else probabilities are equal in float32
        self.conv("rpn_bbox_pred", 1, 512, 4 * anchors)
        self.conv("mrcnn_class_conv1", 7, pyramid, fc)
        self.norm("mrcnn_class_bn1", fc)
        self.conv("mrcnn_class_conv2", 1, fc, fc)
        self.norm("mrcnn_class_bn2", fc)
        self.dense("mrcnn_class_logits", fc, classes)
        self.dense("mrcnn_bbox_fc", fc, 4 * classes)
        for number in range(1, 5):
            self.conv(f"mrcnn_mask_conv{number}", 3, pyramid if number == 1 else 256, 256)
            self.norm(f"mrcnn_mask_bn{number}", 256)
        self.conv("mrcnn_mask_deconv", 2, 256, 256)
        self.conv("mrcnn_mask", 1, 256, classes)

    def draw(self, *shape, scale=1.0, mean=0.0):
        return (mean + scale * self.rng.standard_normal(shape, dtype=np.float32)).astype(np.float32)

    def conv(self, name, size, inputs, outputs, gain=1.0):
        scale = gain * math.sqrt(2 / (size * size * inputs))
        self.layers[name] = {
            "kernel": self.draw(size, size, inputs, outputs, scale=scale),
            "bias": self.draw(outputs, scale=0.3),
        }

    def dense(self, name, inputs, outputs):
        self.layers[name] = {
            "kernel": self.draw(inputs, outputs, scale=math.sqrt(1 / inputs)),
            "bias": self.draw(outputs, scale=0.1),
        }

    def norm(self, name, channels, gamma=1.0):
        self.layers[name] = {
            "gamma": self.draw(channels, scale=0.1 * gamma, mean=gamma),
            "beta": self.draw(channels, scale=0.1),
            "moving_mean": np.zeros(channels, np.float32),
            "moving_variance": np.ones(channels, np.float32),
        }

    def calibrate(self, settings, image):
        """Sets the norms' statistics to those of an image, without which the features of random weights explode."""
        network = KerasMaskRCNN(self.layers, settings)
        network.calibrating = True
        network.detect(image)
        for layer, weights in self.layers.items():
            for name in weights:
                weights[name] = network.layers[layer][name].numpy().astype(np.float32)
        return self.layers


def write_h5(path, layers, layout="tf.keras"):
    """Saves as a version of Keras does: "tf.keras", "standalone" with TensorFlow's counters, or "model" with the optimizer's state."""
    import h5py

    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights") if layout == "model" else file
        for layer, weights in layers.items():
            outer = "rpn_model" if layer.startswith("rpn_") else layer
            inner = f"{layer}_1" if layout == "standalone" and layer.startswith("rpn_") else layer
            group = root.require_group(outer)
            for name, value in weights.items():
                group[f"{inner}/{name}:0"] = value
        root.create_group("input_image")  # layers without weights have empty groups
        if layout == "model":
            file["optimizer_weights/SGD/conv1/kernel/momentum:0"] = np.zeros(3)
    return path


class KerasMaskRCNN:
    """The network in inference mode; boxes are (y1, x1, y2, x2), normalised by height - 1 and width - 1 of the padded image."""

    def __init__(self, layers, settings):
        self.layers = {
            layer: {name: torch.from_numpy(value).double() for name, value in weights.items()}
            for layer, weights in layers.items()
        }
        self.settings = settings
        self.calibrating = False

    def conv(self, x, name, stride=1, padding=0):
        layer = self.layers[name]
        return F.conv2d(x, layer["kernel"].permute(3, 2, 0, 1), layer["bias"], stride, padding)

    def norm(self, x, name):
        if self.calibrating:
            self.layers[name]["moving_mean"] = x.mean((0, 2, 3))
            self.layers[name]["moving_variance"] = x.var((0, 2, 3))
        gamma, beta, mean, variance = (
            self.layers[name][k].view(-1, 1, 1) for k in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return gamma * (x - mean) / torch.sqrt(variance + EPSILON) + beta

    def stem(self, image):
        x = self.norm(self.conv(F.pad(image, (3, 3, 3, 3)), "conv1", 2), "bn_conv1").relu()
        return F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-math.inf), 3, 2)

    def block(self, x, stage, letter, stride):
        name = f"{stage}{letter}_branch"
        y = self.norm(self.conv(x, f"res{name}2a", stride), f"bn{name}2a").relu()
        y = self.norm(self.conv(y, f"res{name}2b", padding=1), f"bn{name}2b").relu()
        y = self.norm(self.conv(y, f"res{name}2c"), f"bn{name}2c")
        shortcut = self.norm(self.conv(x, f"res{name}1", stride), f"bn{name}1") if letter == "a" else x
        return (y + shortcut).relu()

    def trunk(self, image):
        x, stages = self.stem(image), {}
        for stage, blocks in enumerate(BLOCKS[self.settings["BACKBONE"]], 2):
            for block in range(blocks):
                letter = "abcdefghijklmnopqrstuvw"[block]
                x = self.block(x, stage, letter, 2 if letter == "a" and stage > 2 else 1)
            stages[stage] = x
        return stages

    def pyramid(self, image):
        """p2 to p6 of a molded image (1, 3, H, W)."""
        stages, merged = self.trunk(image), {}
        for level in (5, 4, 3, 2):
            merged[level] = self.conv(stages[level], f"fpn_c{level}p{level}")
            if level < 5:
                merged[level] = merged[level] + merged[level + 1].repeat_interleave(2, 2).repeat_interleave(2, 3)
        levels = [self.conv(merged[level], f"fpn_p{level}", padding=1) for level in (2, 3, 4, 5)]
        return [*levels, levels[3][:, :, ::2, ::2]]

    def rpn(self, levels):
        """Logits (A, 2), background first, and deltas (A, 4) of all anchors."""
        logits, deltas = [], []
        for level in levels:
            shared = self.conv(level, "rpn_conv_shared", padding=1).relu()
            logits.append(self.conv(shared, "rpn_class_raw").permute(0, 2, 3, 1).reshape(-1, 2))
            deltas.append(self.conv(shared, "rpn_bbox_pred").permute(0, 2, 3, 1).reshape(-1, 4))
        return torch.cat(logits).numpy(), torch.cat(deltas).numpy()

    def anchors(self, height, width):
        found = []
        for scale, stride in zip(self.settings["RPN_ANCHOR_SCALES"], (4, 8, 16, 32, 64), strict=True):
            for y in range(0, height, stride):
                for x in range(0, width, stride):
                    for ratio in self.settings["RPN_ANCHOR_RATIOS"]:
                        h, w = scale / math.sqrt(ratio), scale * math.sqrt(ratio)
                        found.append([y - h / 2, x - w / 2, y + h / 2, x + w / 2])
        return normalised(np.array(found), height, width)

    def proposals(self, logits, deltas, anchors):
        scores = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
        best = np.argsort(-scores, kind="stable")[: self.settings["PRE_NMS_LIMIT"]]
        boxes = decoded(anchors[best], deltas[best]).clip(0, 1)
        keep = suppressed(boxes, scores[best], 0.7)[: self.settings["POST_NMS_ROIS_INFERENCE"]]
        return boxes[keep], scores[best][keep]

    def pooled(self, levels, boxes, size, height, width):
        h, w = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
        with np.errstate(divide="ignore"):
            offset = np.log2(np.sqrt(h * w) / (224 / math.sqrt(height * width)))
        number = np.clip(4 + np.rint(offset), 2, 5).astype(int) - 2
        return torch.from_numpy(
            np.stack([crop_and_resize(levels[n][0].numpy(), box, size) for n, box in zip(number, boxes, strict=True)])
        )

    def class_head(self, pooled):
        x = self.norm(self.conv(pooled, "mrcnn_class_conv1"), "mrcnn_class_bn1").relu()
        x = self.norm(self.conv(x, "mrcnn_class_conv2"), "mrcnn_class_bn2").relu()[:, :, 0, 0]
        logits, deltas = (
            x @ self.layers[name]["kernel"] + self.layers[name]["bias"]
            for name in ("mrcnn_class_logits", "mrcnn_bbox_fc")
        )
        return logits.softmax(1).numpy(), deltas.reshape(len(x), -1, 4).numpy()

    def mask_head(self, pooled):
        x = pooled
        for number in range(1, 5):
            x = self.norm(self.conv(x, f"mrcnn_mask_conv{number}", padding=1), f"mrcnn_mask_bn{number}").relu()
        deconv = self.layers["mrcnn_mask_deconv"]
        x = F.conv_transpose2d(x, deconv["kernel"].permute(3, 2, 0, 1), deconv["bias"], 2).relu()
        return self.conv(x, "mrcnn_mask").sigmoid().numpy()

    def detections(self, rois, probabilities, deltas, window):
        """Boxes, classes from 1 on, and scores."""
        classes, rows = probabilities.argmax(1), np.arange(len(rois))
        scores = probabilities[rows, classes]
        boxes = decoded(rois, deltas[rows, classes])
        boxes = np.stack([boxes[:, i].clip(window[i % 2], window[i % 2 + 2]) for i in range(4)], 1)
        chosen = np.flatnonzero((classes > 0) & (scores >= self.settings["DETECTION_MIN_CONFIDENCE"]))
        keep = [
            own[i]
            for label in np.unique(classes[chosen])
            for own in [chosen[classes[chosen] == label]]
            for i in suppressed(boxes[own], scores[own], 0.3)
        ]
        keep = sorted(keep, key=lambda i: -scores[i])[: self.settings["DETECTION_MAX_INSTANCES"]]
        return boxes[keep], classes[keep], scores[keep]

    def detect(self, image):
        """Boxes (x0, y0, x1, y1) in pixels of the image (H, W, 3), before they are rounded; classes, scores, masks (28, 28)."""
        molded, (top, left, bottom, right) = mold(image, self.settings)
        height, width = molded.shape[:2]
        levels = self.pyramid(torch.from_numpy(molded).permute(2, 0, 1)[None])
        rois, _ = self.proposals(*self.rpn(levels), self.anchors(height, width))
        probabilities, deltas = self.class_head(self.pooled(levels, rois, 7, height, width))
        window = normalised(np.array([[top, left, bottom, right]], float), height, width)[0]
        boxes, classes, scores = self.detections(rois, probabilities, deltas, window)
        masks = self.mask_head(self.pooled(levels, boxes, 14, height, width))[np.arange(len(boxes)), classes]
        extent = np.tile(window[2:] - window[:2], 2)
        inside = (boxes - np.tile(window[:2], 2)) / extent
        stored = inside * (np.tile(image.shape[:2], 2) - 1) + [0, 0, 1, 1]
        return stored[:, [1, 0, 3, 2]], classes, scores, masks


def mold(image, settings):
    """The resized, padded image less its mean, and the window (top, left, bottom, right)."""
    height, width = image.shape[:2]
    mode = settings["IMAGE_RESIZE_MODE"]
    scale = max(1, settings["IMAGE_MIN_DIM"] / min(height, width)) if mode != "none" else 1
    if mode == "square" and round(max(height, width) * scale) > settings["IMAGE_MAX_DIM"]:
        scale = settings["IMAGE_MAX_DIM"] / max(height, width)
    h, w = round(height * scale), round(width * scale)
    zoomed = ndimage.zoom(
        image.astype(float), (h / height, w / width, 1), order=1, mode="grid-constant", grid_mode=True
    )
    side = settings["IMAGE_MAX_DIM"]
    outer = (side, side) if mode == "square" else (-(-h // 64) * 64, -(-w // 64) * 64)
    top, left = (outer[0] - h) // 2, (outer[1] - w) // 2
    canvas = np.zeros((*outer, 3), np.uint8)
    canvas[top : top + h, left : left + w] = zoomed + 1e-9
    return canvas - np.array([123.7, 116.8, 103.9]), (top, left, top + h, left + w)


def normalised(boxes, height, width):
    return (boxes - [0, 0, 1, 1]) / [height - 1, width - 1, height - 1, width - 1]


def decoded(boxes, deltas):
    deltas = deltas * [0.1, 0.1, 0.2, 0.2]
    size = boxes[:, 2:] - boxes[:, :2]
    centre = boxes[:, :2] + size / 2 + deltas[:, :2] * size
    size = size * np.exp(deltas[:, 2:])
    return np.concatenate([centre - size / 2, centre + size / 2], 1)


def suppressed(boxes, scores, threshold):
    """Greedy non-maximum suppression; equal scores in their order."""
    keep = []
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for i in np.argsort(-scores, kind="stable"):
        inner = np.minimum(boxes[i, 2:], boxes[keep][:, 2:]) - np.maximum(boxes[i, :2], boxes[keep][:, :2])
        common = inner.clip(0).prod(1)
        union = area[i] + area[keep] - common
        if not (common > threshold * union).any():
            keep.append(i)
    return np.array(keep, int)


def crop_and_resize(features, box, size):
    """(C, H, W) -> (C, size, size), as TensorFlow documents it."""
    _, height, width = features.shape
    ys, xs = (
        box[a] * (n - 1) + np.arange(size) * (box[a + 2] - box[a]) * (n - 1) / (size - 1)
        for a, n in ((0, height), (1, width))
    )
    found = np.zeros((len(features), size, size))
    for i, y in enumerate(ys):
        for j, x in enumerate(xs):
            if 0 <= y <= height - 1 and 0 <= x <= width - 1:
                y0, x0 = int(y), int(x)
                y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
                fy, fx = y - y0, x - x0
                upper = features[:, y0, x0] * (1 - fx) + features[:, y0, x1] * fx
                lower = features[:, y1, x0] * (1 - fx) + features[:, y1, x1] * fx
                found[:, i, j] = upper * (1 - fy) + lower * fy
    return found
