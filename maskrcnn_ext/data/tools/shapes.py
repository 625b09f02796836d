"""Generates an instance-segmentation data set of overlapping textured shapes, for the demo and the tests.

The same arguments produce the same pixels and masks. A mask covers the visible part of a shape.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from maskrcnn_ext.ops.rle import encode_mask, rle_box

CLASSES = ("disc", "rectangle", "triangle", "star", "ring")

_EMPTY_SHARE = 0.05  # of images without objects
_MAX_OBJECTS = 6
_MIN_VISIBLE = 0.3  # a shape with a smaller visible share is not annotated: it could not be recognised
_MIN_AREA = 40  # pixels
_SUPERSAMPLING = 4  # bits of sub-pixel precision for OpenCV's drawing


def make_shapes(folder: Path, *, num_images: int, size: int = 128, seed: int = 0) -> Path:
    """Writes images and a COCO instances file.

    Args:
        folder: where ``images/*.jpg`` and ``annotations.json`` are written.
        num_images: how many images.
        size: height and width of an image in pixels.
        seed: of the images; use different seeds for training and validation.

    Returns:
        The annotation file.

    Example:
        >>> make_shapes(tmp_path, num_images=2, size=64).name
        'annotations.json'
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id in range(1, num_images + 1):
        # One generator per image: the first n images do not depend on the number of images.
        pixels, objects = draw_scene(np.random.default_rng([seed, image_id]), size)
        name = f"{image_id:06d}.jpg"
        cv2.imwrite(str(folder / "images" / name), pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])
        images.append({"id": image_id, "file_name": name, "height": size, "width": size})
        for category, mask in objects:
            rle = encode_mask(mask)
            x0, y0, x1, y1 = rle_box(rle)
            annotation = {
                "id": len(annotations) + 1,
                "image_id": image_id,
                "category_id": category + 1,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": int(mask.sum()),
                "iscrowd": 0,
                "segmentation": rle,
            }
            annotations.append(annotation)
    categories = [{"id": index + 1, "name": name} for index, name in enumerate(CLASSES)]
    file = folder / "annotations.json"
    file.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories}), encoding="utf-8"
    )
    return file


def draw_scene(rng: np.random.Generator, size: int) -> tuple[np.ndarray, list[tuple[int, np.ndarray]]]:
    """Draws one image.

    Returns:
        Pixels (size, size, 3), uint8, BGR, and for each annotated shape its class index and visible mask (size, size), bool.
    """
    canvas = _texture(rng, size)
    drawn: list[tuple[int, np.ndarray, int]] = []
    count = 0 if rng.random() < _EMPTY_SHARE else int(rng.integers(1, _MAX_OBJECTS + 1))
    for _ in range(count):
        category = int(rng.integers(len(CLASSES)))
        mask = _shape_mask(rng, category, size)
        texture = _texture(rng, size)
        canvas[mask] = texture[mask]
        edge = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8)) > 0
        canvas[edge & mask] *= 0.55  # a darker rim separates shapes of similar texture
        drawn = [(other, seen & ~mask, full) for other, seen, full in drawn]
        drawn.append((category, mask, int(mask.sum())))
    canvas += rng.normal(0.0, 6.0, canvas.shape).astype(np.float32)
    pixels = np.clip(canvas, 0, 255).astype(np.uint8)
    return pixels, [(c, seen) for c, seen, full in drawn if seen.sum() >= max(_MIN_AREA, _MIN_VISIBLE * full)]


def _shape_mask(rng: np.random.Generator, category: int, size: int) -> np.ndarray:
    radius = rng.uniform(0.09, 0.24) * size
    centre = rng.uniform(0.1 * size, 0.9 * size, 2)
    stretch = np.array([1.0, rng.uniform(0.7, 1.0)])
    outline = _OUTLINES[category]() * radius * stretch
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    mask = np.zeros((size, size), np.uint8)
    _fill(mask, outline @ turn.T + centre, 1)
    if CLASSES[category] == "ring":
        _fill(mask, 0.5 * outline @ turn.T + centre, 0)
    return mask.astype(bool)


def _fill(mask: np.ndarray, points: np.ndarray, value: int) -> None:
    cv2.fillPoly(mask, [np.round(points * 2**_SUPERSAMPLING).astype(np.int32)], value, shift=_SUPERSAMPLING)


def _regular(corners: int, inner: float = 1.0) -> np.ndarray:
    """Returns corners (n, 2) on the unit circle; every second one has the radius `inner`."""
    angles = 2 * np.pi * np.arange(corners) / corners
    radii = np.where(np.arange(corners) % 2, inner, 1.0)
    return np.stack([np.cos(angles) * radii, np.sin(angles) * radii], axis=1)


_OUTLINES: tuple[Callable[[], np.ndarray], ...] = (
    lambda: _regular(48),
    lambda: np.array([[-1.0, -0.7], [1.0, -0.7], [1.0, 0.7], [-1.0, 0.7]]),
    lambda: _regular(3),
    lambda: _regular(10, inner=0.45),
    lambda: _regular(48),
)


def _texture(rng: np.random.Generator, size: int) -> np.ndarray:
    """Returns a texture (size, size, 3), float32, 0 to 255: two colours mixed by stripes, checks, blobs or a ramp, or a plain colour."""
    first, second = rng.uniform(30, 225, (2, 3)).astype(np.float32)
    y, x = np.mgrid[:size, :size].astype(np.float32)
    angle, period = rng.uniform(0, np.pi), rng.uniform(6, 20)
    along = x * np.cos(angle) + y * np.sin(angle)
    across = y * np.cos(angle) - x * np.sin(angle)
    kind = int(rng.integers(5))
    if kind == 0:
        mix = 0.5 + 0.5 * np.sign(np.sin(2 * np.pi * along / period))
    elif kind == 1:
        mix = 0.5 + 0.5 * np.sign(np.sin(2 * np.pi * along / period) * np.sin(2 * np.pi * across / period))
    elif kind == 2:
        coarse = rng.random((max(2, int(size / period)),) * 2).astype(np.float32)
        mix = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    elif kind == 3:
        mix = (along - along.min()) / (along.max() - along.min())
    else:
        mix = np.zeros_like(x)
    return first + (second - first) * mix[..., None].astype(np.float32)
