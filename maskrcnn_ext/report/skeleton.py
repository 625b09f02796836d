"""Keypoints drawn over an image: joints, and lines between those that belong together."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

# OpenCV draws at fractions of a pixel: coordinates with so many bits behind the point.
_BITS = 4
# A line of one pixel for so many pixels of the skeleton's extent, which keeps near people strong and far ones thin.
_PIXELS_PER_WIDTH, _MAX_WIDTH = 70, 6
_RIM = (25, 25, 25)


def draw_skeleton(
    canvas: np.ndarray,
    keypoints: np.ndarray,
    links: Sequence[tuple[int, int]],
    color: tuple[int, int, int],
    *,
    scale: float = 1.0,
    min_visible: float = 0.05,
) -> None:
    """Draws one object's keypoints, in place: a dark rim sets them off from any background.

    Args:
        canvas: (height, width, 3), uint8, BGR, contiguous.
        keypoints: (K, 3), x and y in pixels of the image, where the centre of the first pixel is at 0.5; and how sure the model is of
            it, or the visibility of an annotation (0 not labelled, 1 hidden, 2 visible).
        links: pairs of indices of keypoints that a line joins.
        color: blue, green, red, 0 to 255.
        scale: size of the canvas over the size of the image.
        min_visible: what is less sure is not drawn, nor are its lines. Detectron2's Visualizer has the same 0.05.
    """
    points = np.asarray(keypoints, dtype=np.float64).reshape(-1, 3)
    seen = (points[:, 2] >= min_visible) & (points[:, 2] > 0) & np.isfinite(points).all(axis=1)
    if not seen.any():
        return
    # Where a wild number would overflow OpenCV's, somewhere out of sight does as well.
    far = max(canvas.shape)
    centres = np.clip(np.nan_to_num(points[:, :2] * scale), -far, 2 * far)
    places = np.round((centres - 0.5) * 2**_BITS).astype(int).tolist()
    extent = float(np.ptp(centres[seen], axis=0).max())
    width = int(np.clip(round(extent / _PIXELS_PER_WIDTH), 1, _MAX_WIDTH))
    # On a small skeleton a rim would hide what it sets off.
    rim = 1 if extent >= _PIXELS_PER_WIDTH else 0
    lines = [(places[a], places[b]) for a, b in links if seen[a] and seen[b]]
    joints = [place for place, is_seen in zip(places, seen, strict=True) if is_seen]
    for line_color, line_width in ((_RIM, width + 2 * rim), (color, width)):
        for start, end in lines:
            cv2.line(canvas, start, end, line_color, line_width, cv2.LINE_AA, _BITS)
    light = tuple(int(value + 0.6 * (255 - value)) for value in color)
    for place in joints:
        for radius, fill in ((width + 2 * rim, _RIM), (width + rim, light)):
            cv2.circle(canvas, place, radius * 2**_BITS, fill, -1, cv2.LINE_AA, _BITS)
