"""The part of a repair that concerns images: which stay, with which id and size, and where their objects then lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from maskrcnn_ext.data.check.faults import Fault
from maskrcnn_ext.data.check.images import SWAPPING_ORIENTATIONS, Pixels, PixelsByImage
from maskrcnn_ext.data.check.segmentation import parse_segmentation
from maskrcnn_ext.data.check.view import DatasetView, ImageView, ObjectView
from maskrcnn_ext.data.formats.records import keypoints_to_pixel_indices, keypoints_to_subpixel
from maskrcnn_ext.ops.rle import decode_rle, encode_mask

# Kinds of fault with which an image cannot stay.
_UNUSABLE = ("image-missing", "image-corrupt", "image-broken", "leak-exact")


def fill_sizes(data: dict[str, Any], view: DatasetView, pixels: PixelsByImage, log: list[str]) -> None:
    """Adds the size of the file to images without a size."""
    for image in view.images:
        read = pixels.get(image.key)
        if read is not None and not read.problem and (image.height is None or image.width is None):
            data["images"][image.index].update(height=read.height, width=read.width)
            log.append(f"{_describe(image)}: is {read.width} x {read.height} (width, height) now, as its file")


def drop_images(data: dict[str, Any], view: DatasetView, faults: list[Fault], log: list[str]) -> None:
    """Removes unusable images and their objects; `faults` refer to the images of `view` by index."""
    unusable = {image.index: "image-sizeless" for image in view.images if image.height is None or image.width is None}
    unusable |= {
        fault.image.index: fault.kind for fault in faults if fault.image is not None and fault.kind in _UNUSABLE
    }
    files: dict[Any, set[Any]] = {}
    for image in view.images:
        files.setdefault(image.id, set()).add(image.key)
    kept: dict[Any, ImageView] = {}
    dropped_ids = set()
    for image in view.images:
        if len(files[image.id]) > 1:
            dropped_ids.add(image.id)
            log.append(f"{_describe(image)}: left out with its objects, another image has its id")
        elif image.index in unusable:
            dropped_ids.add(image.id)
            log.append(f"{_describe(image)}: left out with its objects ({unusable[image.index]})")
        elif kept.setdefault(image.id, image) is not image:
            log.append(f"{_describe(image)}: left out, the file has it twice")
    data["images"] = [data["images"][image.index] for image in kept.values()]
    orphans = {found.index for found in view.objects if found.image is not None and found.image.id in dropped_ids}
    data["annotations"] = [entry for index, entry in enumerate(data["annotations"]) if index not in orphans]


def merge_records(data: dict[str, Any], view: DatasetView, log: list[str]) -> None:
    """Merges the records of one file into the first of them, with the objects of all."""
    first: dict[Any, Any] = {}
    moved: dict[Any, Any] = {}
    for image in view.images:
        if first.setdefault(image.key, image.id) != image.id:
            moved[image.id] = first[image.key]
            log.append(f"{_describe(image)}: merged into image {moved[image.id]!r}")
    data["images"] = [data["images"][image.index] for image in view.images if image.id not in moved]
    for found in view.objects:
        if found.image is not None and found.image.id in moved:
            data["annotations"][found.index]["image_id"] = moved[found.image.id]


def correct_sizes(data: dict[str, Any], view: DatasetView, pixels: PixelsByImage, log: list[str]) -> None:
    """Sets the size of images to that of their file, and moves their objects along."""
    for image in view.images:
        read = pixels.get(image.key)
        correction = None if read is None else _find_correction(image, read, view.objects_of(image))
        if read is None or correction is None:
            continue
        data["images"][image.index].update(height=read.height, width=read.width)
        for found in view.objects_of(image):
            _move_object(data["annotations"][found.index], found, correction)
        log.append(
            f"{_describe(image)}: {image.width} x {image.height} became {read.width} x {read.height} (width, height), "
            f"its objects {correction.description}"
        )


def _describe(image: ImageView) -> str:
    return f"image {image.id!r} ({image.file_name})"


_PointMap = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, slots=True)
class _Correction:
    """How the objects of an image move when its size is corrected.

    Attributes:
        description: in words.
        points: maps points (P, 2), x and y.
        mask: maps a mask (H, W) of uint8 to the image's actual size.
    """

    description: str
    points: _PointMap
    mask: Callable[[np.ndarray], np.ndarray]


def _find_correction(image: ImageView, pixels: Pixels, objects: list[ObjectView]) -> _Correction | None:
    """Returns how the objects of an image move; None if its record has the right size.

    If the image is rotated by EXIF, the record has the size before the rotation, and usually so have the objects. But if an object
    lies outside that size and inside the other, the objects were drawn on the rotated image. If the image was scaled, so are they.
    """
    assert image.width is not None
    assert image.height is not None
    old, new = (image.width, image.height), (pixels.width, pixels.height)
    if old == new:
        return None
    if pixels.orientation in SWAPPING_ORIENTATIONS and old == new[::-1]:
        if _fit_into(objects, new) and not _fit_into(objects, old):
            return _Correction("in the turned image already", _keep_points, lambda mask: _crop_or_pad(mask, new))
        return _rotation(pixels.orientation, old)
    same_shape = abs(new[0] * old[1] - new[1] * old[0]) <= max(old[0] * old[1] // 50, max(old + new))
    if same_shape:
        scale = np.array(new) / old
        return _Correction(
            f"scaled by {scale[0]:.4g}",
            lambda points: points * scale,
            lambda mask: cv2.resize(mask, new, interpolation=cv2.INTER_NEAREST),
        )
    return _Correction("left at their pixels and clipped", _keep_points, lambda mask: _crop_or_pad(mask, new))


def _keep_points(points: np.ndarray) -> np.ndarray:
    return points


def _crop_or_pad(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Cuts a mask off at `size` (width, height), or pads it with zeros."""
    width, height = size
    padded = np.zeros((height, width), np.uint8)
    part = mask[:height, :width]
    padded[: part.shape[0], : part.shape[1]] = part
    return padded


def _fit_into(objects: list[ObjectView], size: tuple[int, int]) -> bool:
    boxes = [found.box for found in objects if found.box is not None]
    return all(box[2] <= size[0] + 1 and box[3] <= size[1] + 1 for box in boxes)


def _rotation(orientation: int, size: tuple[int, int]) -> _Correction:
    """Returns what EXIF orientations 5 to 8 do to stored pixels of `size` (width, height) to show them upright."""
    width, height = size
    points: dict[int, _PointMap] = {
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
    return _Correction("turned as EXIF says", points[orientation], masks[orientation])


def _move_object(annotation: dict[str, Any], found: ObjectView, correction: _Correction) -> None:
    """Moves the box, mask and keypoints of a COCO annotation, in place."""
    if found.box is not None:
        corners = correction.points(np.array(found.box).reshape(2, 2))
        low, high = corners.min(axis=0), corners.max(axis=0)
        annotation["bbox"] = [float(value) for value in (*low, *(high - low))]
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        rle = parse_segmentation(segmentation, None, None).rle
        if rle is not None:
            mask = correction.mask(decode_rle(rle))
            annotation["segmentation"] = encode_mask(mask)
            annotation["area"] = int(mask.sum())
    elif found.segmentation.polygons:
        annotation["segmentation"] = [correction.points(p).ravel().tolist() for p in found.segmentation.polygons]
        annotation.pop("area", None)  # measured again by a later step
    if found.num_keypoint_values and found.num_keypoint_values % 3 == 0:
        labelled = np.reshape(annotation["keypoints"], (-1, 3)).any(axis=1)  # COCO writes 0, 0, 0 for the others
        values = np.array(keypoints_to_subpixel(annotation["keypoints"]), dtype=np.float64).reshape(-1, 3)
        values[labelled, :2] = correction.points(values[labelled, :2])
        annotation["keypoints"] = keypoints_to_pixel_indices(values.ravel().tolist())
