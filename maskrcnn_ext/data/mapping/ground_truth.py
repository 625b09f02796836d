"""Converts the annotations of an augmented image to the ground truth of a model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data.detection_utils import filter_empty_instances, transform_keypoint_annotations
from detectron2.data.transforms import TransformList
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances, Keypoints, PolygonMasks, polygons_to_bitmask

from maskrcnn_ext.data.formats.polygons import box_of_polygons
from maskrcnn_ext.data.mapping.shared_masks import SharedBitMasks
from maskrcnn_ext.ops.rle import decode_rle
from maskrcnn_ext.ops.rle_checks import check_rle, find_broken_rle
from maskrcnn_ext.ops.unlabelled import IgnoreRegion, Unlabelled

# One object's outline: polygons [x, y, x, y, ...], or a mask (H, W) of 0 and 1.
Outline = list[np.ndarray] | np.ndarray


def are_sound_rles(annotations: Sequence[dict[str, Any]]) -> bool:
    """Whether the masks of all objects are valid compressed RLEs. Checking all at once takes about as long as checking one."""
    rles: list[Any] = [a.get("segmentation") for a in annotations if not a.get("iscrowd", 0)]
    try:
        return find_broken_rle(rles) is None
    except (IndexError, KeyError, TypeError, ValueError):  # polygons, masks or broken RLEs
        return False


def read_outline(segmentation: Any, height: int, width: int, *, is_sound_rle: bool = False) -> Outline:
    """Returns the polygons (float64) or the mask (uint8) of a ``segmentation``.

    Args:
        segmentation: polygons, of which those with fewer than three points are dropped; a COCO RLE, compressed or not; or a mask (H, W).
        height: of the image in pixels.
        width: of the image in pixels.
        is_sound_rle: whether :func:`are_sound_rles` has checked it.

    Raises:
        ValueError: the segmentation is missing or broken; the message completes the sentence "annotation 3 ...".

    Example:
        >>> read_outline([[1, 1, 5, 1, 5, 4]], 8, 8)
        [array([1., 1., 5., 1., 5., 4.])]
    """
    if segmentation is None or (isinstance(segmentation, list) and not segmentation):
        raise ValueError("has no segmentation")
    if isinstance(segmentation, list):
        return _read_polygons(segmentation)
    from_rle = isinstance(segmentation, dict)
    if from_rle:
        try:
            segmentation = decode_rle(segmentation if is_sound_rle else check_rle(segmentation))
        except ValueError as error:
            raise ValueError(f"has {error}") from error
    if not isinstance(segmentation, np.ndarray) or segmentation.ndim != 2:
        raise ValueError(
            f"has a segmentation of type {type(segmentation).__name__}: expected polygons, RLE or a mask (H, W)"
        )
    if segmentation.shape != (height, width):
        raise ValueError(
            f"has a mask of {segmentation.shape[1]} x {segmentation.shape[0]} in an image of {width} x {height}"
        )
    return segmentation if from_rle else (segmentation != 0).astype(np.uint8)


def _read_polygons(segmentation: list[Any]) -> list[np.ndarray]:
    try:
        polygons = [np.asarray(polygon, dtype=np.float64) for polygon in segmentation]
    except (TypeError, ValueError):
        raise ValueError("has polygons that are not lists of numbers") from None
    if not all(np.isfinite(polygon).all() for polygon in polygons):
        raise ValueError("has a polygon with coordinates that are NaN or infinite")
    polygons = [polygon for polygon in polygons if polygon.ndim == 1 and len(polygon) >= 6 and len(polygon) % 2 == 0]
    if not polygons:
        raise ValueError("has no polygon [x, y, x, y, ...] of three points or more")
    return polygons


def read_ignore_region(annotations: Sequence[dict[str, Any]], height: int, width: int) -> np.ndarray | None:
    """Returns the union of the crowds among the annotations, (H, W) uint8; None if there is no crowd.

    A crowd without a segmentation, or with a broken one, covers its box. A region of every class is stored as a crowd of each class, and
    read once.

    Args:
        annotations: in Detectron2's standard format.
        height: of the stored image in pixels.
        width: of the stored image in pixels.

    Raises:
        KeyError, TypeError, ValueError: a box is missing or broken.
    """
    crowds = {}
    for annotation in annotations:
        if annotation.get("iscrowd", 0):
            outline = annotation.get("segmentation")
            text = id(outline) if isinstance(outline, np.ndarray) else str(outline)
            crowds[tuple(annotation["bbox"]), text] = annotation
    if not crowds:
        return None
    region = np.zeros((height, width), np.uint8)
    for annotation in crowds.values():
        try:
            outline = read_outline(annotation.get("segmentation"), height, width)
        except ValueError:
            corners = BoxMode.convert(list(annotation["bbox"]), annotation["bbox_mode"], BoxMode.XYXY_ABS)
            outline = box_outline(np.array(corners, dtype=np.float64))
        region |= _rasterise(outline, height, width)
    return region


def _rasterise(outline: Outline, height: int, width: int) -> np.ndarray:
    """Returns an outline as a mask (H, W), uint8."""
    return outline if isinstance(outline, np.ndarray) else polygons_to_bitmask(outline, height, width).astype(np.uint8)


def make_unlabelled(
    region: np.ndarray | None,
    labelled_classes: Sequence[int] | None,
    outlines: Sequence[Outline],
    image_size: tuple[int, int],
    count: int,
) -> Unlabelled | None:
    """Returns the field ``gt_unlabelled`` of an image; None if its labels are complete.

    Args:
        region: (H, W) uint8, the ignore regions in the augmented image; None for an image without.
        labelled_classes: the classes that are labelled in this image; None for all.
        outlines: of the objects in the augmented image. Their pixels are labelled, also inside ignore regions.
        image_size: (H, W).
        count: number of objects.
    """
    mask = None
    if region is not None:
        left = region.astype(bool)
        for outline in outlines:
            left &= _rasterise(outline, *image_size) == 0
        mask = IgnoreRegion(torch.from_numpy(left)) if left.any() else None
    if mask is None and labelled_classes is None:
        return None
    classes = None if labelled_classes is None else torch.tensor(list(labelled_classes), dtype=torch.int64)
    return Unlabelled(count, mask, classes)


def box_outline(box: np.ndarray) -> Outline:
    """Returns a box (x0, y0, x1, y1) as a polygon."""
    x0, y0, x1, y1 = (float(value) for value in box)
    return [np.array([x0, y0, x1, y0, x1, y1, x0, y1])]


def transform_box(box: Any, mode: BoxMode, transforms: TransformList, image_size: tuple[int, int]) -> np.ndarray:
    """Returns the transformed box (x0, y0, x1, y1), clipped to the transformed image (H, W).

    Raises:
        ValueError: a coordinate is not finite.
        TypeError: a coordinate is not a number.
    """
    numbers = list(box)  # integers stay integers: as in Detectron2, the transform then returns integers
    if not np.isfinite(np.array(numbers, dtype=np.float64)).all():
        raise ValueError(f"the box {numbers} contains NaN or infinity")
    corners = np.array([BoxMode.convert(numbers, mode, BoxMode.XYXY_ABS)])
    moved = transforms.apply_box(corners)[0].clip(min=0)
    height, width = image_size
    return np.minimum(moved, [width, height, width, height])


def transform_outline(outline: Outline, transforms: TransformList) -> Outline:
    """Returns the outline in the transformed image; an empty list if no polygon is left."""
    if isinstance(outline, np.ndarray):
        # Padding is no part of the mask: FixedSizeCrop of Detectron2's main branch marks it with 255.
        return (transforms.apply_segmentation(outline) == 1).astype(np.uint8)
    return [
        polygon.reshape(-1) for polygon in transforms.apply_polygons([polygon.reshape(-1, 2) for polygon in outline])
    ]


def make_masks(outlines: Sequence[Outline], image_size: tuple[int, int], mask_format: str) -> PolygonMasks | BitMasks:
    """Returns polygons if `mask_format` is "polygon" and every outline is one; otherwise bit masks (N, H, W) of the image (H, W)."""
    if mask_format == "polygon" and all(isinstance(outline, list) for outline in outlines):
        return PolygonMasks(list(outlines))
    masks = [
        polygons_to_bitmask(outline, *image_size) if isinstance(outline, list) else outline.astype(bool)
        for outline in outlines
    ]
    return SharedBitMasks(torch.from_numpy(np.stack(masks)) if masks else torch.zeros(0, *image_size, dtype=torch.bool))


def make_points(
    annotations: Sequence[dict[str, Any]], transforms: TransformList, image_size: tuple[int, int], share: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Returns the labelled points of objects in the augmented image; None if no object has one.

    Args:
        annotations: of N objects, with ``point_coords`` and ``point_labels`` if they have points.
        transforms: the augmentation.
        image_size: (H, W) after the augmentation.
        share: of an object's points, rounded up, which numpy's global generator draws; all are left in their order if it is 1.

    Returns:
        (N, P, 2) float32, x and y in pixels; (N, P) float32: 1 for the mask, 0 for the background, -1 for a place that is no point: an
        object has fewer points than another, a point was not drawn, or the augmentation moved it out of the image.

    Raises:
        ValueError: an object has other numbers of points than of labels, or a coordinate is not finite.
    """
    found = [np.asarray(a.get("point_coords", ()), dtype=np.float64).reshape(-1, 2) for a in annotations]
    marks = [np.asarray(a.get("point_labels", ()), dtype=np.float64) for a in annotations]
    most = max(map(len, found), default=0)
    if not most:
        return None
    height, width = image_size
    coords, labels = np.zeros((len(found), most, 2)), np.full((len(found), most), -1.0)
    for index, (points, own) in enumerate(zip(found, marks, strict=True)):
        if len(points) != len(own) or not np.isfinite(points).all():
            raise ValueError(
                f"`point_coords` and `point_labels` do not fit: {len(points)} and {len(own)}, or not finite"
            )
        if len(points):
            moved = transforms.apply_coords(points.copy())  # in place in some transforms
            inside = ((moved >= 0) & (moved < (width, height))).all(axis=1)
            coords[index, : len(points)] = moved
            if share < 1:
                inside[np.random.permutation(len(points))[math.ceil(share * len(points)) :]] = False
            labels[index, : len(points)] = np.where(inside, own, -1)
    return torch.from_numpy(coords).float(), torch.from_numpy(labels).float()


def drop_empty(instances: Instances) -> Instances:
    """Returns the instances without those whose box or mask is empty. An object without mask (``gt_has_mask``) needs only a box."""
    if not instances.has("gt_has_mask"):
        return filter_empty_instances(instances)
    kept = filter_empty_instances(instances, by_mask=False)
    return kept[kept.gt_masks.nonempty() | ~kept.gt_has_mask]


def tight_boxes(masks: PolygonMasks | BitMasks, image_size: tuple[int, int]) -> Boxes:
    """Returns the boxes of the masks inside the image (H, W), zeros for an empty mask.

    Boxes of polygons have sub-pixel precision and differ by less than a pixel from those of the rasterised masks.
    """
    if isinstance(masks, BitMasks):
        return masks.get_bounding_boxes()
    boxes = [
        box_of_polygons([polygon.tolist() for polygon in polygons], *image_size) if polygons else (0.0, 0.0, 0.0, 0.0)
        for polygons in masks.polygons
    ]
    return Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))


def make_keypoints(
    keypoints: Sequence[Sequence[float] | None],
    transforms: TransformList,
    image_size: tuple[int, int],
    hflip_indices: Sequence[int] | None,
) -> Keypoints | None:
    """Returns the keypoints (N, K, 3) in the transformed image. Objects without keypoints get unlabelled ones (visibility 0).

    Args:
        keypoints: [x, y, visibility, ...] or None per object.
        transforms: the augmentation.
        image_size: (H, W) after the augmentation.
        hflip_indices: for each keypoint, the index of its counterpart in a horizontally flipped image.

    Returns:
        The keypoints; None if neither the objects nor `hflip_indices` define their number K.

    Raises:
        ValueError: the number of keypoints differs between objects or from `hflip_indices`, or a coordinate is not finite.
    """
    known = [points for points in keypoints if points is not None]
    if not all(np.isfinite(np.asarray(points, dtype=np.float64)).all() for points in known):
        raise ValueError("keypoints contain NaN or infinity")
    counts = {len(points) / 3 for points in known}
    if hflip_indices is not None:
        counts.add(float(len(hflip_indices)))
    if not counts:
        return None
    if len(counts) > 1 or not min(counts).is_integer():
        raise ValueError(f"keypoints of different numbers: {', '.join(f'{count:g}' for count in sorted(counts))}")
    count = int(counts.pop())
    moved = [
        np.zeros((count, 3))
        if points is None
        else transform_keypoint_annotations(points, transforms, image_size, hflip_indices)
        for points in keypoints
    ]
    return Keypoints(np.array(moved).reshape(len(moved), count, 3))
