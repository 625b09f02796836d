"""Computes how much detections and objects overlap: IoU of boxes, masks or outlines, or similarity of keypoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, overload

import numpy as np

from maskrcnn_ext.common.text import or_list
from maskrcnn_ext.data.registry.keypoints import check_sigmas
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.evaluation.results import Results
from maskrcnn_ext.evaluation.stored_results import Columns, columns_of, scores_of
from maskrcnn_ext.evaluation.truth import Truth
from maskrcnn_ext.ops.rle import pairwise_iou, rle_area, rle_boundary, segmentation_to_rle

TASKS = ("bbox", "segm", "boundary", "keypoints")
# COCO's limit of detections per image and class for keypoints.
KEYPOINT_LIMIT = 20
# COCO's (cocodataset.org/#keypoints-eval), nose to ankles.
COCO_SIGMAS = np.repeat([0.026, 0.025, 0.035, 0.079, 0.072, 0.062, 0.107, 0.087, 0.089], [1] + 8 * [2])


class Overlaps(Sequence[np.ndarray]):
    """A matrix for each image, of which only the entries that are not 0 are in memory: few detections overlap the same object.

    Example:
        >>> overlaps = Overlaps()
        >>> overlaps.append(np.array([[0.0, 0.5]]))
        >>> overlaps[0], len(overlaps)
        (array([[0. , 0.5]]), 1)
    """

    def __init__(self) -> None:
        """Starts without images."""
        self._shapes: list[tuple[int, ...]] = []
        self._entries: list[tuple[np.ndarray, np.ndarray]] = []

    def append(self, matrix: np.ndarray) -> None:
        """Adds the matrix of the next image."""
        places = np.flatnonzero(matrix)
        self._shapes.append(matrix.shape)
        self._entries.append((places.astype(np.uint32), matrix.ravel()[places]))

    def __len__(self) -> int:
        return len(self._shapes)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...

    @overload
    def __getitem__(self, index: slice) -> list[np.ndarray]: ...

    def __getitem__(self, index: int | slice) -> np.ndarray | list[np.ndarray]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        places, values = self._entries[index]
        matrix = np.zeros(self._shapes[index])
        matrix.ravel()[places] = values
        return matrix


@dataclass(frozen=True)
class Pairs:
    """N detections and M objects of I images and K classes, and the overlaps within each image.

    Detections are sorted by image, within an image by descending score. Detections of equal score stay in the order of the results.

    Attributes:
        num_images: I.
        num_classes: K.
        result: (N) int64, index into the results.
        image: (N) int64, index of the image.
        category: (N) int64, index of the class.
        score: (N) float64.
        area: (N) float64 in pixels.
        object_image: (M) int64, index of the image.
        object_category: (M) int64, index of the class.
        object_area: (M) float64 in pixels.
        crowd: (M) bool, groups of objects. Any number of detections may be inside a crowd; they count neither as right nor as wrong.
        ignored: (M) bool, crowds, and for keypoints also objects without a visible keypoint.
        overlaps: for each image an array (detections of the image, objects of the image) float64. For a crowd, the overlap is the share
            of the detection inside it.
        detection_starts: (I + 1) int64, index of each image's first detection.
        object_starts: (I + 1) int64, index of each image's first object.
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
    overlaps: Overlaps
    detection_starts: np.ndarray
    object_starts: np.ndarray

    @cached_property
    def by_class(self) -> list[np.ndarray]:
        """K index arrays: the detections of each class by descending score, equal scores in the order of the images."""
        order = np.lexsort((-self.score, self.category))
        return np.split(order, np.searchsorted(self.category[order], np.arange(1, self.num_classes)))

    def of_image(self, index: int) -> tuple[slice, slice]:
        """Returns the slices of an image's detections and objects."""
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
        results: detections as :func:`load_results` returns them. Masks are ranked by ``mask_score`` if they have one.
        task: one of :data:`TASKS`.
        max_detections: limit of detections per image and class; None for all (for keypoints, COCO's 20).
        sigmas: of the keypoints; by default those of the dataset, or COCO's.

    Raises:
        InputError: the task is unknown, objects or results lack a field that it needs, or the number of keypoints differs.
    """
    sigmas = list(sigmas or truth.sigmas)
    columns = columns_of(results)
    _check(truth, columns, task, sigmas)
    if task == "keypoints" and max_detections is None:
        max_detections = KEYPOINT_LIMIT
    images = {image["id"]: index for index, image in enumerate(truth.images)}
    classes = {category["id"]: index for index, category in enumerate(truth.categories)}
    annotations = sorted(truth.annotations, key=lambda found: images[found["image_id"]])
    image = np.array([images[key] for key in columns.image_ids], dtype=np.int64)
    category = np.array([classes[key] for key in columns.category_ids], dtype=np.int64)
    score = scores_of(columns, of_masks=task in ("segm", "boundary"))
    order = np.lexsort((-score, image))
    if max_detections is not None:
        order = order[_rank_in_group(image[order] * len(classes) + category[order]) < max_detections]
    object_image = np.array([images[found["image_id"]] for found in annotations], dtype=np.int64)
    crowd = np.array([bool(found["iscrowd"]) for found in annotations], dtype=bool)
    no_keypoints = [task == "keypoints" and found["num_keypoints"] == 0 for found in annotations]
    starts = [np.searchsorted(index, np.arange(len(images) + 1)) for index in (image[order], object_image)]
    overlaps, areas = Overlaps(), [np.zeros(0)]
    for index, record in enumerate(truth.images):
        found = [results[i] for i in order[starts[0][index] : starts[0][index + 1]]]
        objects = slice(starts[1][index], starts[1][index + 1])
        matrix, area = _measure_image(task, found, annotations[objects], crowd[objects], record, sigmas)
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
        ignored=crowd | np.array(no_keypoints, dtype=bool),
        overlaps=overlaps,
        detection_starts=starts[0],
        object_starts=starts[1],
    )


def keypoint_similarity(
    points: np.ndarray, objects: np.ndarray, boxes: np.ndarray, areas: np.ndarray, sigmas: np.ndarray
) -> np.ndarray:
    """Computes object keypoint similarity (cocodataset.org/#keypoints-eval) of D detections and G objects with P keypoints.

    For an object without a visible keypoint, the distance is that of each keypoint to the object's box, doubled in size.

    Args:
        points: (D, P, 3) x, y and a third value that is not used.
        objects: (G, P, 3) x, y and visibility.
        boxes: (G, 4) x, y, width and height of the objects.
        areas: (G) of the objects in pixels.
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


def _measure_image(
    task: str,
    found: Results,
    objects: list[dict[str, Any]],
    crowd: np.ndarray,
    image: dict[str, Any],
    sigmas: Sequence[float],
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the overlaps (D, G) of an image's detections and objects, and the areas (D) of the detections."""
    boxes = np.array([result["bbox"] for result in found], dtype=np.float64).reshape(-1, 4)
    true_boxes = np.array([item["bbox"] for item in objects], dtype=np.float64).reshape(-1, 4)
    area = boxes[:, 2] * boxes[:, 3]
    shape = (len(found), len(objects))
    if task == "keypoints":
        if 0 in shape:
            return np.zeros(shape), area
        points = np.array([result["keypoints"] for result in found], dtype=np.float64).reshape(len(found), -1, 3)
        true_points = np.array([item["keypoints"] for item in objects], dtype=np.float64).reshape(len(objects), -1, 3)
        true_areas = np.array([item["area"] for item in objects], dtype=np.float64)
        sigma_array = np.array(sigmas) if sigmas else COCO_SIGMAS
        return keypoint_similarity(points, true_points, true_boxes, true_areas, sigma_array), area
    if task == "bbox":
        return pairwise_iou(boxes, true_boxes, crowd.tolist()), area
    masks = [result["segmentation"] for result in found]
    area = np.array([rle_area(mask) for mask in masks], dtype=np.float64)
    if 0 in shape:
        return np.zeros(shape), area
    true_masks = [segmentation_to_rle(item["segmentation"], image["height"], image["width"]) for item in objects]
    overlap = pairwise_iou(masks, true_masks, crowd.tolist())
    if task == "boundary":
        bands = [[rle_boundary(mask) for mask in group] for group in (masks, true_masks)]
        overlap = np.minimum(overlap, pairwise_iou(bands[0], bands[1], crowd.tolist()))
    return overlap, area


def _check(truth: Truth, columns: Columns, task: str, sigmas: Sequence[float]) -> None:
    if task not in TASKS:
        raise InputError(f"unknown task {task!r}: choose {or_list(TASKS)}")
    key = {"boundary": "segmentation", "segm": "segmentation"}.get(task, task)
    lacking = next((found["id"] for found in truth.annotations if not found.get(key)), None)
    for where, number in ((f"{truth.name}: annotation", lacking), ("the results: entry", columns.lacking[key])):
        if number is not None:
            raise InputError(f"{where} {number} has no `{key}`, which task {task} needs: choose another task")
    if task == "keypoints" and truth.annotations:
        annotated = len(truth.annotations[0]["keypoints"]) // 3
        for number in columns.num_keypoints:
            check_sigmas(sigmas, predicted=number, annotated=annotated)


def _rank_in_group(groups: np.ndarray) -> np.ndarray:
    """Returns, for each of N elements, how many earlier elements are in the same group, (N) int64."""
    order = np.argsort(groups, kind="stable")
    first = np.searchsorted(groups[order], groups[order])
    rank = np.empty(len(groups), dtype=np.int64)
    rank[order] = np.arange(len(groups)) - first
    return rank
