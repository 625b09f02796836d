"""Moves an annotation from the image that it was drawn on to the image that the file holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pycocotools.mask as mask_util

from maskrcnn_ext.data.check.pixels import Pixels
from maskrcnn_ext.data.check.segmentation import parse_segmentation
from maskrcnn_ext.data.check.view import ImageView, ObjectView
from maskrcnn_ext.data.formats.records import encode_mask

Points = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, slots=True)
class Placing:
    """How an image's objects are moved.

    Attributes:
        told: in words.
        points: moves (P, 2) x and y.
        mask: moves a mask (H, W) of uint8; the result is of the image's real size.
    """

    told: str
    points: Points
    mask: Callable[[np.ndarray], np.ndarray]


def placing_of(image: ImageView, pixels: Pixels, objects: list[ObjectView]) -> Placing | None:
    """Returns how the objects of an image get to where they belong; None when its record has the right size.

    Of a turned image, the record's size is that of the pixels before the turn, and so, as a rule, are its objects; but not where one of
    them lies outside of that frame and inside of the other. Of a scaled image, they scale along.
    """
    assert image.width is not None
    assert image.height is not None
    old, new = (image.width, image.height), (pixels.width, pixels.height)
    if old == new:
        return None
    same_shape = abs(new[0] * old[1] - new[1] * old[0]) <= max(old[0] * old[1] // 50, max(old + new))
    if pixels.orientation in (5, 6, 7, 8) and old == new[::-1]:
        if _fits(objects, new) and not _fits(objects, old):
            return Placing("in the turned image already", _same, lambda mask: _pad(mask, new))
        return _turned(pixels.orientation, old)
    if same_shape:
        scale = np.array(new) / old
        resize: Callable[[np.ndarray], np.ndarray] = lambda mask: cv2.resize(  # noqa: E731
            mask, new, interpolation=cv2.INTER_NEAREST
        )
        return Placing(f"scaled by {scale[0]:.4g}", lambda points: points * scale, resize)
    return Placing("left at their pixels and clipped", _same, lambda mask: _pad(mask, new))


def _same(points: np.ndarray) -> np.ndarray:
    return points


def _pad(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Cuts off what is beyond (width, height), and fills up with nothing."""
    width, height = size
    placed = np.zeros((height, width), np.uint8)
    part = mask[:height, :width]
    placed[: part.shape[0], : part.shape[1]] = part
    return placed


def _fits(objects: list[ObjectView], size: tuple[int, int]) -> bool:
    boxes = [found.box for found in objects if found.box is not None]
    return all(box[2] <= size[0] + 1 and box[3] <= size[1] + 1 for box in boxes)


def _turned(orientation: int, size: tuple[int, int]) -> Placing:
    """EXIF's 5 to 8: what is done to the stored pixels, of `size` (width, height), to see them upright."""
    width, height = size
    points: dict[int, Points] = {
        5: lambda xy: xy[:, ::-1],
        6: lambda xy: np.stack([height - xy[:, 1], xy[:, 0]], axis=1),
        7: lambda xy: np.stack([height - xy[:, 1], width - xy[:, 0]], axis=1),
        8: lambda xy: np.stack([xy[:, 1], width - xy[:, 0]], axis=1),
    }
    masks: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        5: lambda mask: mask.T,
        6: lambda mask: np.rot90(mask, -1),
        7: lambda mask: np.rot90(mask, 2).T,
        8: lambda mask: np.rot90(mask, 1),
    }
    return Placing("turned as EXIF says", points[orientation], masks[orientation])


def place(annotation: dict[str, Any], found: ObjectView, placing: Placing) -> None:
    """Moves box, mask and keypoints of a COCO annotation, in place."""
    if found.box is not None:
        corners = placing.points(np.array(found.box).reshape(2, 2))
        low, high = corners.min(axis=0), corners.max(axis=0)
        annotation["bbox"] = [float(value) for value in (*low, *(high - low))]
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        rle = parse_segmentation(segmentation, None, None).rle
        if rle is not None:
            mask = placing.mask(mask_util.decode(rle))
            annotation["segmentation"] = encode_mask(mask)
            annotation["area"] = int(mask.sum())
    elif found.segmentation.polygons:
        annotation["segmentation"] = [placing.points(p).ravel().tolist() for p in found.segmentation.polygons]
        annotation.pop("area", None)  # it is measured again
    if found.num_keypoint_values and found.num_keypoint_values % 3 == 0:
        values = np.array(annotation["keypoints"], dtype=np.float64).reshape(-1, 3)
        seen = values.any(axis=1)  # COCO writes 0, 0, 0 for what is not labelled
        # They count from the centre of a pixel, boxes and polygons from its corner.
        values[seen, :2] = placing.points(values[seen, :2] + 0.5) - 0.5
        annotation["keypoints"] = values.ravel().tolist()
