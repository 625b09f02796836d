"""A large image of labels, and a detector that finds the objects of a tile as a model does: nearly perfect, ragged where it is cut."""

import json
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import psutil
import torch
from detectron2.structures import Boxes, Instances

from maskrcnn_ext.inference.tiling.predictor import predict_tiled
from maskrcnn_ext.inference.tiling.windowed import WindowedImage
from maskrcnn_ext.ops.rle import encode_labels, with_byte_counts
from maskrcnn_ext.ops.rle_masks import RLEMasks
from maskrcnn_ext.ops.rle_segments import Segments
from maskrcnn_ext.ops.tile_grid import TileGrid


def make_labels(size, tile, overlap, num_objects, on_seams=0.3, seed=0):
    """(size, size) uint16, a number an object: ellipses and stars, a share of them cut by tiles' edges, some touching in pairs."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((size, size), np.uint16)
    edges = sorted({x for x, _, width, _ in TileGrid(size, size, tile, overlap).windows for x in (x, x + width)})
    edges = edges[1:-1]
    centres = np.empty((0, 3))
    label = 0
    while label < num_objects:
        radius = rng.integers(15, 60)
        x, y = rng.integers(radius + 2, size - radius - 2, 2)
        is_on_seam = label < on_seams * num_objects
        if is_on_seam:
            x = int(rng.choice(edges)) + rng.integers(-radius // 2, radius // 2 + 1)
            if rng.random() < 0.5:
                x, y = y, x
        if (np.hypot(centres[:, 0] - x, centres[:, 1] - y) < centres[:, 2] + radius + 1).any():
            continue
        centres = np.vstack([centres, [x, y, radius]])
        angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        reach = radius * (0.75 + 0.25 * np.cos(5 * angles) if rng.random() < 0.5 else 1)
        squash = rng.uniform(0.6, 1)
        turn = rng.uniform(0, np.pi)
        points = np.stack([reach * np.cos(angles), squash * reach * np.sin(angles)]).T
        points = points @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) + (x, y)
        label += 1
        cv2.fillPoly(labels, [np.rint(points).astype(np.int32)], label)
        if is_on_seam and label % 3 == 0 and label < num_objects:  # cut in two that touch
            halves = np.s_[y - radius : y + radius + 1, x : x + radius + 1]
            label += 1
            labels[halves][labels[halves] == label - 1] = label
    return labels


def num_cut(labels, tile, overlap):
    """How many objects a tile's edge cuts."""
    cut = set()
    for x, y, width, height in TileGrid(*labels.shape[::-1], tile, overlap).windows:
        for edge, beyond in ((x, x - 1), (x + width - 1, x + width)):
            if 0 <= beyond < labels.shape[1]:
                cut |= set(np.intersect1d(labels[:, edge], labels[:, beyond]).tolist())
        for edge, beyond in ((y, y - 1), (y + height - 1, y + height)):
            if 0 <= beyond < labels.shape[0]:
                cut |= set(np.intersect1d(labels[edge], labels[beyond]).tolist())
    return len(cut - {0})


def detect(tiles, has_masks=True):
    """The objects of tiles (H, W, 1 or more), whose first channel is the labels; the same tile gives the same."""
    return [_detect(tile[:, :, 0], has_masks) for tile in tiles]


def _detect(labels, has_masks):
    height, width = labels.shape
    rng = np.random.default_rng([int(labels.sum()), height, width])
    noisy = labels.copy()
    # One pixel of the outline is wrong here and there, and many are missing close to the edge of the tile.
    neighbour = np.roll(labels, (1, 1), axis=(0, 1))
    flipped = (neighbour != labels) & (rng.random(labels.shape) < 0.03)
    flipped[0] = flipped[:, 0] = False  # where the other end of the tile is the neighbour
    noisy[flipped] = neighbour[flipped]
    margin = np.ones(labels.shape, bool)
    margin[3:-3, 3:-3] = False
    noisy[margin & (rng.random(labels.shape) < 0.5)] = 0
    regions = encode_labels(noisy)
    found = Instances((height, width))
    found.pred_boxes = Boxes(torch.tensor([region.box for region in regions]).reshape(-1, 4))
    found.scores = torch.from_numpy(rng.uniform(0.5, 1, len(regions)).astype(np.float32))
    found.pred_classes = torch.zeros(len(regions), dtype=torch.int64)
    if has_masks:
        rles = [with_byte_counts(region.rle) for region in regions]
        found.pred_masks = RLEMasks(rles, (height, width))
    return found


def compare(found, labels):
    """IoU of every object with what was found for it: (objects,)."""
    areas = np.bincount(labels.ravel())
    ious = dict.fromkeys(np.flatnonzero(areas)[1:].tolist(), 0.0)
    for rle, box in zip(found.pred_masks.rles, found.pred_masks.boxes().int().tolist(), strict=True):
        part = cut(rle, box)
        true = labels[box[1] : box[3], box[0] : box[2]]
        values, counts = np.unique(true[part], return_counts=True)
        value = int(values[counts.argmax()])
        if value:
            ious[value] = max(ious[value], float(counts.max() / (areas[value] + part.sum() - counts.max())))
    return np.array(list(ious.values()))


def cut(rle, box):
    """The mask in its box, (height, width) bool."""
    x0, y0, x1, y1 = box
    mask = np.zeros((y1 - y0, x1 - x0), bool)
    segments = Segments.from_rle(rle)
    for start, end in zip(segments.starts.tolist(), segments.ends.tolist(), strict=True):
        column = start >> 31
        mask[start - (column << 31) - y0 : end - (column << 31) - y0, column - x0] = True
    return mask


def peak_memory():
    """The most bytes that this process has held; the maximum of ``getrusage`` includes the process that started it."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def main(*arguments):
    """Predicts array files, and prints what was found in each, in how many seconds, and by how much memory had grown until then.

    Args:
        arguments: file, tile and overlap, again and again.
    """
    detect([np.zeros((64, 64, 1), np.uint16)])  # loads lazily imported modules
    before = psutil.Process().memory_info().rss
    runs, summaries = [], []
    for file, tile, overlap in zip(*[iter(arguments)] * 3, strict=True):
        begin = time.perf_counter()
        found = predict_tiled(detect, WindowedImage(Path(file)), tile=int(tile), overlap=float(overlap))
        seconds = time.perf_counter() - begin
        growth = peak_memory() - before
        runs.append((file, found, {"found": len(found), "mb": growth / 2**20, "s": seconds}))
    for file, found, numbers in runs:  # the truth needs more memory
        ious = compare(found, np.load(file))
        summaries.append({**numbers, "iou": ious.mean(), "least": ious.min()})
    print(json.dumps(summaries))


if __name__ == "__main__":
    main(*sys.argv[1:])
