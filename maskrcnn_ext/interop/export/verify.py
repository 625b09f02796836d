"""Compares an exported model with the model in PyTorch, detection by detection, on images."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from maskrcnn_ext.data.mapping.mapper import augment_image
from maskrcnn_ext.interop.export.recipe import Recipe
from maskrcnn_ext.interop.export.runtimes import Runtime
from maskrcnn_ext.interop.export.standalone.paste import full_masks
from maskrcnn_ext.modeling.compact_rcnn import compact_postprocess

Array = np.ndarray
Found = dict[str, Any]
# Boxes and masks of one object have a larger IoU.
_MATCH_IOU = 0.5


@dataclass(frozen=True)
class Limits:
    """Largest differences that are accepted between an exported model and the model.

    Attributes:
        box: of a box's coordinate, in pixels of the image.
        score: of a detection's score or mask score.
        mask_iou: least IoU of two masks, unless they differ in no more than `mask_pixels`.
        mask_pixels: differing pixels that are always accepted; one pixel lowers the IoU of a small mask a lot.
        keypoint: distance in pixels of the image; the maximum of a heatmap may move to the next cell.
        agreement: least :func:`agreement` over all images. If above 0, it replaces the limits of single detections.

    Example:
        >>> Limits(box=0.1).score
        0.001
    """

    box: float = 0.05
    score: float = 1e-3
    mask_iou: float = 0.99
    mask_pixels: int = 2
    keypoint: float = 2.0
    agreement: float = 0.0


# For a model in 8 bits, whose rounding moves each box, score and mask a little and detections of low score across the threshold.
QUANTIZED_LIMITS = Limits(agreement=0.9)


@dataclass
class Comparison:
    """The differences between an exported model and the model in one image.

    Attributes:
        name: of the image.
        size: its height and width.
        found: number of objects that the exported model detected.
        expected: number of objects that the model detected.
        missing: number of objects that only one of them detected, without those in `borderline`.
        borderline: number of objects that only one of them detected because of rounding: the score is within `Limits.score` of the
            threshold, or of the lowest score of the other model if that has detected as many as it may.
        box: largest difference of the coordinates of objects that both detected, in pixels.
        score: largest difference of their scores.
        mask_iou: least IoU of their masks.
        keypoint: largest distance of their keypoints, in pixels.
        shared_score: sum over objects that both detected, with masks of an IoU above 0.5, of twice the lower score.
        total_score: sum of the scores of all detections of both.
        seconds: time of the exported model.
        reference_seconds: time of the model.
        faults: descriptions of the differences beyond the limits.
    """

    name: str
    size: tuple[int, int]
    found: int
    expected: int
    missing: int = 0
    borderline: int = 0
    box: float = 0.0
    score: float = 0.0
    mask_iou: float = 1.0
    keypoint: float = 0.0
    shared_score: float = 0.0
    total_score: float = 0.0
    seconds: float = 0.0
    reference_seconds: float = 0.0
    faults: list[str] = field(default_factory=list)

    def line(self) -> str:
        """Returns the comparison as one line of text."""
        text = (
            f"{self.name} ({self.size[1]} x {self.size[0]}): {self.found} found, {self.expected} expected; largest difference of a box "
            f"{self.box:.2g} px, of a score {self.score:.2g}; least mask IoU {self.mask_iou:.4f}"
        )
        text += f"; keypoints {self.keypoint:.2g} px" if self.keypoint else ""
        text += f"; {self.borderline} at the threshold" if self.borderline else ""
        return text + (f"; BEYOND THE LIMITS: {', '.join(self.faults)}" if self.faults else "")


class Reference:
    """The model in PyTorch with the interface of exported models."""

    def __init__(self, model: nn.Module, mapper: Any) -> None:
        """Takes a GeneralizedRCNN in evaluation mode and its config's ``dataloader.test.mapper``."""
        self.model, self.mapper = model, mapper

    def __call__(self, image: Array) -> Found:
        """Detects the objects of an image (H, W, C) as the mapper reads it; returns the same as a :class:`.runtimes.Runtime`."""
        tensor, _, _ = augment_image(image, self.mapper.augmentations)
        with torch.no_grad():
            given = {"image": tensor.float(), "height": image.shape[0], "width": image.shape[1]}
            (raw,) = self.model.inference([given], do_postprocess=False)
            # A model imported from another framework may paste masks differently.
            postprocess = getattr(self.model, "postprocess", compact_postprocess)
            kept = postprocess(raw, *image.shape[:2]).to("cpu")
        found: Found = {
            "boxes": kept.pred_boxes.tensor.numpy(),
            "scores": kept.scores.numpy(),
            "classes": kept.pred_classes.numpy(),
        }
        if kept.has("pred_masks"):
            found["masks"] = [((0, 0), mask.numpy()) for mask in kept.pred_masks]
        if kept.has("pred_mask_scores"):
            found["mask_scores"] = kept.pred_mask_scores.numpy()
        if kept.has("pred_keypoints"):
            found["keypoints"] = kept.pred_keypoints.numpy()
        return found


def verify(
    runtime: Runtime,
    reference: Callable[[Array], Found],
    recipe: Recipe,
    images: Iterable[tuple[str, Array]],
    limits: Limits | None = None,
    batch: int = 1,
) -> Iterator[Comparison]:
    """Runs an exported model and the model on images and compares their detections.

    Args:
        runtime: the exported model.
        reference: the model.
        recipe: of the model.
        images: names and images (H, W, C) as the mapper reads them.
        limits: differences beyond them are faults; by default :func:`default_limits`.
        batch: largest number of images for one call of the exported model; only consecutive images of one size share a call.

    Yields:
        The comparison of each image.

    Example::

        for comparison in verify(open_model("model.onnx"), Reference(model, mapper), recipe, images):
            print(comparison.line())
    """
    limits = limits or default_limits(runtime)
    for number, group in enumerate(_groups(images, batch)):
        # Runtimes expect OpenCV's order of channels.
        inputs = [
            np.ascontiguousarray(image[:, :, ::-1]) if recipe.image_format == "RGB" else image for _, image in group
        ]
        if number == 0:  # the first call of each is not timed
            runtime(inputs)
            reference(group[0][1])
        begun = time.perf_counter()
        found = runtime(inputs)
        seconds = (time.perf_counter() - begun) / len(group)
        for (name, image), one in zip(group, found, strict=True):
            begun = time.perf_counter()
            expected = reference(image)
            reference_seconds = time.perf_counter() - begun
            result = compare(name, image.shape[:2], one, expected, recipe, limits)
            result.seconds, result.reference_seconds = seconds, reference_seconds
            yield result


def _groups(images: Iterable[tuple[str, Array]], limit: int) -> Iterator[list[tuple[str, Array]]]:
    """Yields groups of up to `limit` consecutive images of one size."""
    for _, same in itertools.groupby(images, key=lambda named: named[1].shape):
        while group := list(itertools.islice(same, limit)):
            yield group


def time_ratio(comparisons: list[Comparison]) -> float:
    """Returns the median over images of the exported model's time divided by the model's."""
    return statistics.median(one.seconds / one.reference_seconds for one in comparisons)


def default_limits(runtime: Runtime) -> Limits:
    """Returns the limits for an exported model."""
    return QUANTIZED_LIMITS if runtime.quantized else Limits()


def agreement(comparisons: Iterable[Comparison]) -> float:
    """Returns the share of the detections of both models that the other model has, too, over all images, weighted by score.

    The same detection has the same class, and boxes and masks of an IoU above 0.5; of two scores, the lower one is shared. 1 if no model
    detected anything.

    Example:
        >>> agreement([Comparison("a.jpg", (4, 4), 2, 1, shared_score=1.6, total_score=2.0)])
        0.8
    """
    images = list(comparisons)
    total = sum(one.total_score for one in images)
    return sum(one.shared_score for one in images) / total if total else 1.0


def compare(
    name: str, size: tuple[int, int], found: Found, expected: Found, recipe: Recipe, limits: Limits
) -> Comparison:
    """Matches the detections of one image by class and box, highest score first, and measures their differences."""
    result = Comparison(name, (int(size[0]), int(size[1])), len(found["boxes"]), len(expected["boxes"]))
    pairs = list(_matches(found, expected, limits.box))
    for side, (mine, other) in enumerate(((found, expected), (expected, found))):
        unmatched = np.delete(mine["scores"], [pair[side] for pair in pairs])
        lowest = other["scores"].min() if len(other["scores"]) >= recipe.max_detections else recipe.score_threshold
        result.borderline += int((unmatched <= lowest + limits.score).sum())
        result.missing += int((unmatched > lowest + limits.score).sum())
    for index, partner in pairs:
        result.box = max(result.box, float(np.abs(found["boxes"][index] - expected["boxes"][partner]).max()))
        for key in ("scores", "mask_scores"):
            if key in expected:
                result.score = max(result.score, abs(float(found[key][index] - expected[key][partner])))
        if "keypoints" in expected:
            distance = found["keypoints"][index][:, :2] - expected["keypoints"][partner][:, :2]
            result.keypoint = max(result.keypoint, float(np.linalg.norm(distance, axis=1).max()))
    result.total_score = float(found["scores"].sum() + expected["scores"].sum())
    bad_masks = 0
    for index, partner in pairs:
        iou = 1.0
        if "masks" in expected:
            a, b = full_masks([found["masks"][index], expected["masks"][partner]], result.size)
            # A mask in a box of whole pixels moves by one if a corner of the box is on the border of two.
            iou, differing = _mask_difference(a, b, slack=recipe.masks == "torchvision")
            result.mask_iou = min(result.mask_iou, iou)
            bad_masks += iou < limits.mask_iou and differing > limits.mask_pixels
        if iou > _MATCH_IOU:
            result.shared_score += 2 * float(min(found["scores"][index], expected["scores"][partner]))
    for fault, bad in {
        f"{result.missing} detected by one model only": result.missing > 0,
        f"boxes by {result.box:.3g} px": not result.box <= limits.box,
        f"scores by {result.score:.3g}": not result.score <= limits.score,
        f"{bad_masks} masks, IoU down to {result.mask_iou:.3g}": bad_masks > 0,
        f"keypoints by {result.keypoint:.3g} px": not result.keypoint <= limits.keypoint,
    }.items():
        if bad and not limits.agreement:
            result.faults.append(fault)
    return result


def _matches(found: Found, expected: Found, limit: float) -> Iterator[tuple[int, int]]:
    """Yields pairs of indices of one object's detections, by descending expected score.

    Boxes match by their IoU, or if their corners differ by at most `limit` pixels: boxes that are clipped to almost no width have no
    overlap.
    """
    free = np.ones(len(found["boxes"]), bool)
    for other in np.argsort(-expected["scores"], kind="stable"):
        box = expected["boxes"][other]
        distance = np.abs(found["boxes"] - box)
        nearness = np.where(distance.max(axis=1) <= limit, 1 - distance.mean(axis=1), 0)
        overlap = np.maximum(nearness, _ious(box, found["boxes"]))
        overlap[~free | (found["classes"] != expected["classes"][other])] = 0
        if len(overlap) and overlap.max() > _MATCH_IOU:
            index = int(overlap.argmax())
            free[index] = False
            yield index, int(other)


def _ious(box: Array, boxes: Array) -> Array:
    """Returns the IoU (R,) of a box (4,) with boxes (R, 4)."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    shared = sides.clip(min=0).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    return np.asarray(shared / np.maximum(areas - shared, np.finfo(np.float32).tiny))


def _mask_difference(a: Array, b: Array, slack: bool) -> tuple[float, int]:
    """Returns the IoU of two masks (H, W) and the number of differing pixels.

    With `slack`, a pixel differs only if the other mask has none of its 3 x 3 neighbours either.
    """
    union = int((a | b).sum())
    iou = int((a & b).sum()) / union if union else 1.0
    near_a, near_b = ((cv2.dilate(mask.astype(np.uint8), np.ones((3, 3))) > 0) if slack else mask for mask in (a, b))
    return iou, int(((a & ~near_b) | (b & ~near_a)).sum())
