"""How much detections and objects overlap: the IoU of boxes, masks or outlines, or the similarity of keypoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import pycocotools.mask as mask_util

from maskrcnn_ext.data.registry.keypoints import check_sigmas
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.evaluation.results import Results, by_mask_score
from maskrcnn_ext.evaluation.truth import Truth, segmentation_rle

TASKS = ("bbox", "segm", "boundary", "keypoints")
# Detections of keypoints of an image and class that COCO counts.
KEYPOINT_LIMIT = 20
# COCO's (cocodataset.org/#keypoints-eval), nose to ankles.
COCO_SIGMAS = np.repeat([0.026, 0.025, 0.035, 0.079, 0.072, 0.062, 0.107, 0.087, 0.089], [1] + 8 * [2])
# Of the image's diagonal: how far from the outline a pixel still belongs to the boundary, as in the paper of Boundary IoU.
_DILATION_RATIO = 0.02


@dataclass(frozen=True)
class Pairs:
    """N detections and M objects of I images and K classes, and the overlaps of those of the same image.

    Detections are in the order of the images, those of an image by falling score, equal scores in the order of the results.

    Attributes:
        num_images: I.
        num_classes: K.
        result: (N) int64, index into the results.
        image: (N) int64.
        category: (N) int64, index of the class.
        score: (N) float64.
        area: (N) float64 in pixels.
        object_image: (M) int64.
        object_category: (M) int64.
        object_area: (M) float64 in pixels.
        crowd: (M) bool, groups: any number of detections may lie in them, and then does not count.
        ignored: (M) bool, crowds and, of keypoints, objects without a visible one.
        overlaps: I arrays (detections of the image, objects of the image) float64, each in the order above; with a crowd, the part of
            the detection that lies inside of it.
        detection_starts: (I + 1) int64, where an image's detections begin.
        object_starts: (I + 1) int64.
    """

    num_images: int
    num_classes: int
    result: np.ndarray
    image: np.ndarray
    category: np.ndarray
    score: np.ndarray
    area: np.ndarray
    object_image: np.ndarray
    object_category: np.ndarray
    object_area: np.ndarray
    crowd: np.ndarray
    ignored: np.ndarray
    overlaps: list[np.ndarray]
    detection_starts: np.ndarray
    object_starts: np.ndarray

    @cached_property
    def by_class(self) -> list[np.ndarray]:
        """The detections of each class by falling score, equal scores in the order of the images: K index arrays."""
        order = np.lexsort((-self.score, self.category))
        return np.split(order, np.searchsorted(self.category[order], np.arange(1, self.num_classes)))

    def of_image(self, index: int) -> tuple[slice, slice]:
        """Returns which detections and which objects are of an image."""
        return (
            slice(int(self.detection_starts[index]), int(self.detection_starts[index + 1])),
            slice(int(self.object_starts[index]), int(self.object_starts[index + 1])),
        )


def pair_up(
    truth: Truth, results: Results, task: str, *, max_detections: int | None = None, sigmas: Sequence[float] = ()
) -> Pairs:
    """Computes all overlaps of a task.

    Args:
        truth: the ground truth.
        results: as :func:`load_results` returns them; masks are ranked by ``mask_score`` where it is given.
        task: one of :data:`TASKS`.
        max_detections: how many of an image and class count; None for all, and for COCO's 20 of keypoints.
        sigmas: of the keypoints; none for the data set's own, or COCO's.

    Raises:
        InputError: objects or results without what the task looks at, or keypoints of another number.
    """
    sigmas = list(sigmas or truth.sigmas)
    _check(truth, results, task, sigmas)
    if task == "keypoints" and max_detections is None:
        max_detections = KEYPOINT_LIMIT
    if task in ("segm", "boundary"):
        results = [by_mask_score(result) for result in results]
    images = {image["id"]: index for index, image in enumerate(truth.images)}
    classes = {category["id"]: index for index, category in enumerate(truth.categories)}
    annotations = sorted(truth.annotations, key=lambda found: images[found["image_id"]])
    image = np.array([images[found["image_id"]] for found in results], dtype=np.int64)
    category = np.array([classes[found["category_id"]] for found in results], dtype=np.int64)
    score = np.array([found["score"] for found in results], dtype=np.float64)
    order = np.lexsort((-score, image))
    if max_detections is not None:
        order = order[_rank_in_group(image[order] * len(classes) + category[order]) < max_detections]
    object_image = np.array([images[found["image_id"]] for found in annotations], dtype=np.int64)
    crowd = np.array([bool(found["iscrowd"]) for found in annotations], dtype=bool)
    pointless = [task == "keypoints" and found["num_keypoints"] == 0 for found in annotations]
    starts = [np.searchsorted(of, np.arange(len(images) + 1)) for of in (image[order], object_image)]
    overlaps, areas = [], [np.zeros(0)]
    for index, own in enumerate(truth.images):
        found = [results[i] for i in order[starts[0][index] : starts[0][index + 1]]]
        objects = slice(starts[1][index], starts[1][index + 1])
        matrix, area = _measure(task, found, annotations[objects], crowd[objects], own, sigmas)
        overlaps.append(matrix)
        areas.append(area)
    return Pairs(
        num_images=len(images),
        num_classes=len(classes),
        result=order,
        image=image[order],
        category=category[order],
        score=score[order],
        area=np.concatenate(areas),
        object_image=object_image,
        object_category=np.array([classes[found["category_id"]] for found in annotations], dtype=np.int64),
        object_area=np.array([found["area"] for found in annotations], dtype=np.float64),
        crowd=crowd,
        ignored=crowd | np.array(pointless, dtype=bool),
        overlaps=overlaps,
        detection_starts=starts[0],
        object_starts=starts[1],
    )


def boundary_rle(mask: dict[str, Any]) -> dict[str, Any]:
    """The band inside a mask's outline (Boundary IoU, CVPR 2021, arXiv:2103.16562, section 4), from and to compressed RLE."""
    height, width = mask["size"]
    distance = max(1, round(_DILATION_RATIO * float(np.hypot(height, width))))
    x, y, w, h = (int(v) for v in mask_util.toBbox(mask))
    pixels = mask_util.decode(mask)
    # Only the box is eroded; a rim of zeros makes its edge, and the image's, an outline.
    crop = np.pad(pixels[y : y + h, x : x + w], 1)
    eroded = cv2.erode(crop, np.ones((3, 3), np.uint8), iterations=distance)
    pixels[y : y + h, x : x + w] -= eroded[1:-1, 1:-1]
    encoded: dict[str, Any] = mask_util.encode(np.asfortranarray(pixels))
    return encoded


def keypoint_similarity(
    points: np.ndarray, objects: np.ndarray, boxes: np.ndarray, areas: np.ndarray, sigmas: np.ndarray
) -> np.ndarray:
    """Object keypoint similarity (cocodataset.org/#keypoints-eval).

    Of an object without a visible keypoint, the distance is that of each keypoint to its box, doubled in size.

    Args:
        points: (D, P, 3) x, y and anything, of D detections.
        objects: (G, P, 3) x, y and visibility.
        boxes: (G, 4) x, y, width, height.
        areas: (G) in pixels.
        sigmas: (P).

    Returns:
        (D, G) float64.
    """
    visible = objects[None, :, :, 2] > 0
    offset = points[:, None, :, :2] - objects[None, :, :, :2]
    low, high = boxes[:, None, :2] - boxes[:, None, 2:], boxes[:, None, :2] + 2 * boxes[:, None, 2:]
    outside = np.maximum(0, low - points[:, None, :, :2]) + np.maximum(0, points[:, None, :, :2] - high)
    none_visible = np.asarray(~visible.any(axis=2))[:, :, None]
    squared = (np.where(none_visible[..., None], outside, offset) ** 2).sum(axis=3)
    similarity = np.exp(-squared / (2 * sigmas) ** 2 / (areas[:, None] + np.spacing(1)) / 2)
    counted = visible | none_visible
    return (similarity * counted).sum(axis=2) / counted.sum(axis=2)


def _measure(
    task: str,
    found: Results,
    objects: list[dict[str, Any]],
    crowd: np.ndarray,
    image: dict[str, Any],
    sigmas: Sequence[float],
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (D, G) overlaps and (D) areas of an image's detections."""
    boxes = np.array([result["bbox"] for result in found], dtype=np.float64).reshape(-1, 4)
    area = boxes[:, 2] * boxes[:, 3]
    shape = (len(found), len(objects))
    if task == "keypoints":
        points = np.array([result["keypoints"] for result in found], dtype=np.float64)
        of_objects = np.array([own["keypoints"] for own in objects], dtype=np.float64)
        own_boxes = np.array([own["bbox"] for own in objects], dtype=np.float64).reshape(-1, 4)
        if 0 in shape:
            return np.zeros(shape), area
        of_sigmas = np.array(sigmas) if sigmas else COCO_SIGMAS
        areas = np.array([own["area"] for own in objects], dtype=np.float64)
        three = (points.reshape(len(found), -1, 3), of_objects.reshape(len(objects), -1, 3))
        return keypoint_similarity(*three, own_boxes, areas, of_sigmas), area
    if task == "bbox":
        own_boxes = np.array([own["bbox"] for own in objects], dtype=np.float64).reshape(-1, 4)
        return (mask_util.iou(boxes, own_boxes, crowd.tolist()) if 0 not in shape else np.zeros(shape)), area
    masks = [result["segmentation"] for result in found]
    # One by one: of 256 and more at once, pycocotools 2.0 fails under numpy 2.
    area = np.array([mask_util.area(mask) for mask in masks], dtype=np.float64)
    if 0 in shape:
        return np.zeros(shape), area
    own = [segmentation_rle(item["segmentation"], image["height"], image["width"]) for item in objects]
    overlap = mask_util.iou(masks, own, crowd.tolist())
    if task == "boundary":
        bands = [[boundary_rle(mask) for mask in of] for of in (masks, own)]
        overlap = np.minimum(overlap, np.asarray(mask_util.iou(*bands, crowd.tolist())))
    return overlap, area


def _check(truth: Truth, results: Results, task: str, sigmas: Sequence[float]) -> None:
    if task not in TASKS:
        raise InputError(f"no task {task!r}: choose from {', '.join(TASKS)}")
    key = {"boundary": "segmentation", "segm": "segmentation"}.get(task, task)
    for what, of, name in (("annotation", truth.annotations, truth.name), ("entry", results, "the results")):
        index = next((index for index, found in enumerate(of) if not found.get(key)), None)
        if index is not None:
            number = of[index]["id"] if what == "annotation" else index
            raise InputError(
                f"{name}: {what} {number} has no `{key}`, which {task} is measured by: choose another task"
            )
    if task == "keypoints" and results and truth.annotations:
        annotated = len(truth.annotations[0]["keypoints"]) // 3
        for number in {len(result["keypoints"]) // 3 for result in results}:
            check_sigmas(sigmas, predicted=number, annotated=annotated)


def _rank_in_group(groups: np.ndarray) -> np.ndarray:
    """Returns how many before it are of the same group, (N) int64."""
    order = np.argsort(groups, kind="stable")
    first = np.searchsorted(groups[order], groups[order])
    rank = np.empty(len(groups), dtype=np.int64)
    rank[order] = np.arange(len(groups)) - first
    return rank
