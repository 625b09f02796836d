"""The part of a repair that concerns images: which stay, with which id and size, and where their objects are then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np

from maskrcnn_ext.data.check.changes import Change
from maskrcnn_ext.data.check.faults import Fault
from maskrcnn_ext.data.check.images import SWAPPING_ORIENTATIONS, Pixels, PixelsByImage
from maskrcnn_ext.data.check.segmentation import parse_segmentation
from maskrcnn_ext.data.check.view import DatasetView, ImageView, ObjectView
from maskrcnn_ext.data.formats.coco_fields import are_numbers
from maskrcnn_ext.data.formats.image_files import image_size
from maskrcnn_ext.data.formats.records import keypoints_to_pixel_indices, keypoints_to_subpixel
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.rle import decode_rle, encode_mask

# The image on which the objects of an image with an EXIF rotation were drawn: as it is stored, or as it is shown.
Frame = Literal["stored", "shown"]

# Kinds of fault with which an image cannot stay.
_UNUSABLE = ("image-missing", "image-corrupt", "image-broken", "leak-exact")


def fill_sizes(data: dict[str, Any], view: DatasetView, pixels: PixelsByImage, log: list[Change]) -> None:
    """Adds the size of the file to images without a size."""
    for image in view.images:
        if image.path is None or (image.height is not None and image.width is not None):
            continue
        read = pixels.get(image.key)
        if read is None:  # the images were not read
            try:
                height, width = image_size(image.path, "")
            except InputError:
                continue
        else:
            height, width = read.height, read.width
        if read is None or read.has_size:
            data["images"][image.index].update(height=height, width=width)
            log.append(Change(f"image {image.label}", f"is {width} x {height} (width, height) now, as its file"))


def drop_images(data: dict[str, Any], view: DatasetView, faults: list[Fault], log: list[Change]) -> None:
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
            # Objects are listed with the first image of an id.
            objects = 0 if image.id in dropped_ids else len(view.objects_of(image))
            dropped_ids.add(image.id)
            log.append(
                Change(f"image {image.label}", "left out with its objects, another image has its id", 1, objects)
            )
        elif image.index in unusable:
            dropped_ids.add(image.id)
            what = f"left out with its objects ({unusable[image.index]})"
            log.append(Change(f"image {image.label}", what, 1, len(view.objects_of(image))))
        elif kept.setdefault(image.id, image) is not image:
            log.append(Change(f"image {image.label}", "left out, the file has it twice; its objects stay"))
    data["images"] = [data["images"][image.index] for image in kept.values()]
    orphans = {found.index for found in view.objects if found.image is not None and found.image.id in dropped_ids}
    data["annotations"] = [entry for index, entry in enumerate(data["annotations"]) if index not in orphans]


def merge_records(data: dict[str, Any], view: DatasetView, log: list[Change]) -> None:
    """Merges the records of one file into the first of them, with the objects of all."""
    first: dict[Any, Any] = {}
    moved: dict[Any, Any] = {}
    for image in view.images:
        if first.setdefault(image.key, image.id) != image.id:
            moved[image.id] = first[image.key]
            log.append(Change(f"image {image.label}", f"merged into image {moved[image.id]!r}"))
    data["images"] = [data["images"][image.index] for image in view.images if image.id not in moved]
    for found in view.objects:
        if found.image is not None and found.image.id in moved:
            data["annotations"][found.index]["image_id"] = moved[found.image.id]


def correct_sizes(
    data: dict[str, Any],
    view: DatasetView,
    pixels: PixelsByImage,
    rotated_objects: Frame | None,
    log: list[Change],
) -> None:
    """Sets the size of images to that of their file, and moves their objects along.

    An image stays as it is if the position of its objects in the file is unknown: a guess would move them to wrong places.
    """
    wrong = [(image, read) for image in view.images if (read := pixels.get(image.key)) and _differs(image, read)]
    frames = {image.index: _frame_of(image, data, view) for image, read in wrong if _is_rotated(image, read)}
    seen = {frame for frame in frames.values() if frame}
    usual = rotated_objects or (seen.pop() if len(seen) == 1 else None)
    for image, read in wrong:
        if _is_rotated(image, read):
            correction = _rotated_correction(image, read, frames[image.index] or usual)
            unknown = "fit the image as it is stored and as EXIF turns it: add --rotated-objects stored or shown"
        else:
            correction = _scaled_correction(image, read, view.objects_of(image))
            unknown = "do not fit the file, which is another image or was turned"
        sizes = f"{image.width} x {image.height}", f"{read.width} x {read.height}"
        if correction is None:
            what = f"stays {sizes[0]}, but the file is {sizes[1]} (width, height): its objects {unknown}"
            log.append(Change(f"image {image.label}", what))
            continue
        data["images"][image.index].update(height=read.height, width=read.width)
        for found in view.objects_of(image):
            _move_object(data["annotations"][found.index], found, correction)
        what = f"{sizes[0]} became {sizes[1]} (width, height), its objects {correction.description}"
        log.append(Change(f"image {image.label}", what))


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


def _differs(image: ImageView, read: Pixels) -> bool:
    return read.has_size and (image.width, image.height) != (read.width, read.height)


def _is_rotated(image: ImageView, read: Pixels) -> bool:
    """Returns whether EXIF swaps the sides of an image, and its record has the shape of the image as it is stored."""
    record, shown = _size_of(image), (read.width, read.height)
    return (
        read.orientation in SWAPPING_ORIENTATIONS
        and _have_same_shape(record, shown[::-1])
        and not _have_same_shape(record, shown)
    )


def _have_same_shape(one: tuple[int, int], other: tuple[int, int]) -> bool:
    difference = abs(other[0] * one[1] - other[1] * one[0])
    return difference <= max(one[0] * one[1] // 50, max(one + other))


def _frame_of(image: ImageView, data: dict[str, Any], view: DatasetView) -> Frame | None:
    """Returns whether the objects of a rotated image are drawn on the stored or on the shown image; None if they fit both."""
    stored = _size_of(image)
    masks = [data["annotations"][found.index].get("segmentation") for found in view.objects_of(image)]
    sizes = {tuple(mask["size"][::-1]) for mask in masks if isinstance(mask, dict) and are_numbers(mask.get("size"))}
    fit_stored = _fit_into(view.objects_of(image), stored) and stored[::-1] not in sizes
    fit_shown = _fit_into(view.objects_of(image), stored[::-1]) and stored not in sizes
    if fit_stored == fit_shown:
        return None
    return "stored" if fit_stored else "shown"


def _rotated_correction(image: ImageView, read: Pixels, frame: Frame | None) -> _Correction | None:
    """Returns how objects move onto an image that EXIF rotates; None if it is unknown on which image they were drawn."""
    shown = (read.width, read.height)
    stored = shown[::-1]
    if frame is None:
        return None
    if frame == "shown":
        return _scaling(_size_of(image)[::-1], shown, "in the image as it is shown already")
    scaling, rotation = _scaling(_size_of(image), stored, ""), _rotation(read.orientation, stored)
    return _Correction(
        rotation.description,
        lambda points: rotation.points(scaling.points(points)),
        lambda mask: rotation.mask(scaling.mask(mask)),
    )


def _scaled_correction(image: ImageView, read: Pixels, objects: list[ObjectView]) -> _Correction | None:
    """Returns how objects move if the size of their image was wrong; None if they do not fit it. Objects are scaled with their image."""
    old, new = _size_of(image), (read.width, read.height)
    if _have_same_shape(old, new) and _fit_into(objects, old):
        return _scaling(old, new, f"scaled by {new[0] / old[0]:.4g}")
    if not _fit_into(objects, new):
        return None
    return _Correction("left at their pixels", _keep_points, lambda mask: _crop_or_pad(mask, new))


def _scaling(old: tuple[int, int], new: tuple[int, int], description: str) -> _Correction:
    scale = np.array(new) / old
    return _Correction(
        description,
        lambda points: points * scale,
        lambda mask: cv2.resize(mask, new, interpolation=cv2.INTER_NEAREST),
    )


def _size_of(image: ImageView) -> tuple[int, int]:
    """Returns (width, height) of a record, which has a size after :func:`drop_images`."""
    assert image.width is not None
    assert image.height is not None
    return image.width, image.height


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
    corners = [found.box[2:] for found in objects if found.box is not None]
    corners += [tuple(points.max(axis=0)) for found in objects for points in found.segmentation.polygons]
    corners += [found.segmentation.box[2:] for found in objects if found.segmentation.box is not None]
    return all(x <= size[0] + 1 and y <= size[1] + 1 for x, y in corners)


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
    if found.segmentation.form == "rle":
        rle = found.segmentation.rle or parse_segmentation(annotation["segmentation"], None, None).rle
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
