"""Objects drawn over their image: tinted masks with outlines, labels and keypoints; boxes of objects without a mask or with an empty one.

Each object is drawn within its box only, so thousands of objects on a large image take seconds.
"""

from __future__ import annotations

from itertools import product

import cv2
import numpy as np

from maskrcnn_ext.inference.outputs.predicted_image import MaskWindow, PredictedImage, encode_png
from maskrcnn_ext.report.draw import FONT, draw_skeleton, draw_text_box, drawable, outline_mask, tint_mask

# Lines and letters grow with the image if its longer side has more pixels than this.
_REFERENCE_SIDE = 800
_FONT_SCALE = 0.4  # up to that size
# An outline is at most this fraction of its object's shorter side.
_MAX_OUTLINE = 1 / 15
# Largest widths of a label and of its short form, in widths of the object: wider ones would hide other objects.
_MAX_LABEL_WIDTHS = (2.5, 1.4)


def overlays(predicted: PredictedImage) -> dict[str, bytes]:
    """Returns the image with its objects drawn on it."""
    return {f"{predicted.item.name}.png": encode_png(draw_overlay(predicted))}


def draw_overlay(predicted: PredictedImage) -> np.ndarray:
    """Returns a copy of the image (H, W, 3), uint8, BGR, with the objects drawn on it, the highest scores on top."""
    canvas = predicted.image.copy()
    unit = max(1.0, max(canvas.shape[:2]) / _REFERENCE_SIDE)
    objects = list(zip(predicted.boxes, predicted.colors, strict=True))[::-1]
    windows: list[MaskWindow | None] = [None] * len(objects)
    if predicted.instances.has("pred_masks"):
        windows = [window if window.mask.any() else None for window in predicted.masks()][::-1]
    for window, (_, color) in zip(windows, objects, strict=True):
        if window is not None:
            tint_mask(window.crop(canvas), window.mask, color)
    for window, (box, color) in zip(windows, objects, strict=True):  # outlines show through masks that cover them
        if window is not None:
            thickness = max(1, round(min(unit, min(window.mask.shape) * _MAX_OUTLINE)))
            outline_mask(canvas, window.mask, color, thickness=thickness, offset=(window.x, window.y))
        else:
            x0, y0, x1, y1 = (round(value) for value in box)
            cv2.rectangle(canvas, (x0, y0), (x1, y1), color, round(unit), cv2.LINE_AA)
    if predicted.instances.has("pred_keypoints"):
        for points, (_, color) in zip(predicted.instances.pred_keypoints.numpy()[::-1], objects, strict=True):
            draw_skeleton(canvas, points, predicted.classes.skeleton, color=color)
    _write_labels(canvas, predicted, unit)
    return canvas


def _write_labels(canvas: np.ndarray, predicted: PredictedImage, unit: float) -> None:
    """Writes class and score above each object or inside its upper edge, the highest score first.

    An object without room for its label gets the short form, or none.
    """
    scale, thickness, margin = _FONT_SCALE * unit, max(1, round(unit)), round(2 * unit)
    taken = np.zeros((0, 4))
    for texts, box, color in zip(_label_texts(predicted), predicted.boxes, predicted.colors, strict=True):
        for (text, max_widths), is_inside in product(zip(texts, _MAX_LABEL_WIDTHS, strict=True), (False, True)):
            (width, height), base = cv2.getTextSize(text, FONT, scale, thickness)
            width, height = width + 2 * margin, height + base + margin
            x = max(0, min(round(box[0]), canvas.shape[1] - width))
            y = max(0, round(box[1]) - (0 if is_inside else height))
            overlaps = (taken[:, :2] < (x + width, y + height)) & (taken[:, 2:] > (x, y))
            if width > max_widths * (box[2] - box[0]) or overlaps.all(axis=1).any():
                continue
            taken = np.concatenate([taken, [[x, y, x + width, y + height]]])
            label_box, origin = (x, y, x + width, y + height), (x + margin, y + height - base)
            draw_text_box(canvas, text, label_box, origin, color, scale=scale, thickness=thickness)
            break


def _label_texts(predicted: PredictedImage) -> list[tuple[str, str]]:
    """Returns the label of each object and its short form."""
    scores = [f"{score:.2f}" for score in predicted.instances.scores.tolist()]
    labels = [(f"{drawable(name)} {score}", score) for name, score in zip(predicted.names, scores, strict=True)]
    if not predicted.instances.has("track_ids"):
        return labels
    tracks = [f"#{number}" for number in predicted.instances.track_ids.tolist()]
    return [(f"{track} {label}", track) for track, (label, _) in zip(tracks, labels, strict=True)]
