"""Objects drawn over their image: tinted masks with outlines, labels, keypoints; boxes where there are no masks.

Every object costs what its box costs, so that thousands of them on one large image are drawn in seconds.
"""

from __future__ import annotations

from itertools import product

import cv2
import numpy as np

from maskrcnn_ext.inference.outputs.scene import Scene, png
from maskrcnn_ext.report.draw import FONT, draw_skeleton, draw_text_box, outline_mask, tint_mask

# Longer side of an image in pixels from which on lines and letters grow with it, and the scale of letters up to there.
_SIDE, _LETTERS = 800, 0.4
# Lines are not wider than this part of their object.
_THINNEST = 15
# Widths of a label and of its short form, as shares of the object's: wider ones would hide others.
_WIDEST = (2.5, 1.4)


def overlays(scene: Scene) -> dict[str, bytes]:
    """Returns the picture."""
    return {f"{scene.item.name}.png": png(overlay(scene))}


def overlay(scene: Scene) -> np.ndarray:
    """Draws the objects, the highest scores on top; returns (H, W, 3), uint8, BGR, of the image's size."""
    canvas = scene.image.copy()
    unit = max(1.0, max(canvas.shape[:2]) / _SIDE)
    objects = list(zip(scene.boxes, scene.colors, strict=True))[::-1]
    if scene.found.has("pred_masks"):
        regions = list(scene.masks())[::-1]
        for region, (_, color) in zip(regions, objects, strict=True):
            tint_mask(region.of(canvas), region.mask, color)
        for region, (_, color) in zip(regions, objects, strict=True):  # an outline shows through masks that hide it
            thickness = max(1, round(min(unit, min(region.mask.shape) / _THINNEST)))
            outline_mask(canvas, region.mask, color, thickness=thickness, offset=(region.x, region.y))
    else:
        for box, color in objects:
            x0, y0, x1, y1 = (round(value) for value in box)
            cv2.rectangle(canvas, (x0, y0), (x1, y1), color, round(unit), cv2.LINE_AA)
    if scene.found.has("pred_keypoints"):
        for points, (_, color) in zip(scene.found.pred_keypoints.numpy()[::-1], objects, strict=True):
            draw_skeleton(canvas, points, scene.classes.skeleton, color=color)
    _write_labels(canvas, scene, unit)
    return canvas


def _write_labels(canvas: np.ndarray, scene: Scene, unit: float) -> None:
    """Writes class and score above the objects or at their upper edge, from the highest score on: less where there is no room."""
    scale, thickness, margin = _LETTERS * unit, max(1, round(unit)), round(2 * unit)
    taken = np.zeros((0, 4))
    for texts, box, color in zip(_labels(scene), scene.boxes, scene.colors, strict=True):
        for (text, widest), is_inside in product(zip(texts, _WIDEST, strict=True), (False, True)):
            (width, height), base = cv2.getTextSize(text, FONT, scale, thickness)
            width, height = width + 2 * margin, height + base + margin
            x = max(0, min(round(box[0]), canvas.shape[1] - width))
            y = max(0, round(box[1]) - (0 if is_inside else height))
            overlaps = (taken[:, :2] < (x + width, y + height)) & (taken[:, 2:] > (x, y))
            if width > widest * (box[2] - box[0]) or overlaps.all(axis=1).any():
                continue
            taken = np.concatenate([taken, [[x, y, x + width, y + height]]])
            label_box, origin = (x, y, x + width, y + height), (x + margin, y + height - base)
            draw_text_box(canvas, text, label_box, origin, color, scale=scale, thickness=thickness)
            break


def _labels(scene: Scene) -> list[tuple[str, str]]:
    """What to write at every object, and what where that has no room."""
    scores = [f"{score:.2f}" for score in scene.found.scores.tolist()]
    labels = [(f"{name} {score}", score) for name, score in zip(scene.names, scores, strict=True)]
    if not scene.found.has("track_ids"):
        return labels
    tracks = [f"#{number}" for number in scene.found.track_ids.tolist()]
    return [(f"{track} {label}", track) for track, (label, _) in zip(tracks, labels, strict=True)]
