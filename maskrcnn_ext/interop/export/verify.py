"""Does an exported model find what the model finds: detection by detection, on images."""

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
from maskrcnn_ext.interop.export.standalone.paste import whole
from maskrcnn_ext.modeling.compact_rcnn import compact_postprocess

Array = np.ndarray
Found = dict[str, Any]
# Beyond it, boxes are of different objects.
_SAME = 0.5


@dataclass(frozen=True)
class Limits:
    """How far an exported model may be off.

    Attributes:
        box: a side of a box, in pixels of the image.
        score: a score, also one of a mask.
        mask_iou: least IoU of two masks, unless they differ in no more than `mask_pixels`.
        mask_pixels: see there: a single pixel is much of a small mask, and some lie at the threshold.
        keypoint: in pixels of the image; the maximum of a heatmap may jump to its neighbour.
    """

    box: float = 0.05
    score: float = 1e-3
    mask_iou: float = 0.99
    mask_pixels: int = 2
    keypoint: float = 2.0


@dataclass
class Comparison:
    """What two models found in one image.

    Attributes:
        name: of the image.
        size: its height and width.
        found: how many objects the exported model found.
        expected: how many the model did.
        missing: how many of those the other did not find, and how many it found in addition, without those of `borderline`.
        borderline: how many one of them alone found, where rounding decides: within `Limits.score` of the threshold, or of the least
            score of the other model that has found as many as it may.
        box: largest difference of the objects that both found, in pixels.
        score: likewise.
        mask_iou: least.
        keypoint: largest distance, in pixels.
        seconds: that the exported model took.
        reference_seconds: that the model took.
        faults: what is beyond the limits.
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
    seconds: float = 0.0
    reference_seconds: float = 0.0
    faults: list[str] = field(default_factory=list)

    def line(self) -> str:
        """One line of text."""
        text = (
            f"{self.name} ({self.size[1]} x {self.size[0]}): {self.found} found, {self.expected} expected; largest difference of a box "
            f"{self.box:.2g} px, of a score {self.score:.2g}; least mask IoU {self.mask_iou:.4f}"
        )
        text += f"; keypoints {self.keypoint:.2g} px" if self.keypoint else ""
        text += f"; {self.borderline} at the threshold" if self.borderline else ""
        return text + (f"; BEYOND THE LIMITS: {', '.join(self.faults)}" if self.faults else "")


class Reference:
    """The model in PyTorch, called as exported ones are."""

    def __init__(self, model: nn.Module, mapper: Any) -> None:
        """Takes a GeneralizedRCNN in evaluation mode and the mapper of its config's ``dataloader.test``."""
        self.model, self.mapper = model, mapper

    def __call__(self, image: Array) -> Found:
        """Finds the objects of an image (H, W, C) as the mapper reads it; see :class:`.runtimes.Runtime` for what it returns."""
        tensor, _, _ = augment_image(image, self.mapper.augmentations)
        with torch.no_grad():
            given = {"image": tensor.float(), "height": image.shape[0], "width": image.shape[1]}
            (raw,) = self.model.inference([given], do_postprocess=False)
            # A model with weights from elsewhere may paste masks in another way.
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
    """Runs both on images.

    Args:
        runtime: the exported model.
        reference: the model.
        recipe: of the model.
        images: names and images (H, W, C) as the mapper reads them.
        limits: beyond which a difference is a fault.
        batch: give the exported model so many images at once, as far as those that follow each other are of one size.
    """
    limits = limits or Limits()
    for number, group in enumerate(_groups(images, batch)):
        # Runtimes take what OpenCV reads.
        given = [
            np.ascontiguousarray(image[:, :, ::-1]) if recipe.image_format == "RGB" else image for _, image in group
        ]
        if number == 0:  # what is done once, at the first image, is not timed
            runtime(given)
            reference(group[0][1])
        begun = time.perf_counter()
        found = runtime(given)
        seconds = (time.perf_counter() - begun) / len(group)
        for (name, image), one in zip(group, found, strict=True):
            begun = time.perf_counter()
            expected = reference(image)
            reference_seconds = time.perf_counter() - begun
            result = compare(name, image.shape[:2], one, expected, recipe, limits)
            result.seconds, result.reference_seconds = seconds, reference_seconds
            yield result


def _groups(images: Iterable[tuple[str, Array]], most: int) -> Iterator[list[tuple[str, Array]]]:
    """Images of one size that follow each other, at most so many together."""
    for _, same in itertools.groupby(images, key=lambda named: named[1].shape):
        while group := list(itertools.islice(same, most)):
            yield group


def time_ratio(comparisons: list[Comparison]) -> float:
    """How many times as long as the model the exported one takes: the median of the images."""
    return statistics.median(one.seconds / one.reference_seconds for one in comparisons)


def compare(
    name: str, size: tuple[int, int], found: Found, expected: Found, recipe: Recipe, limits: Limits
) -> Comparison:
    """Matches the detections of one image by class and IoU, the surest first, and measures their differences."""
    result = Comparison(name, (int(size[0]), int(size[1])), len(found["boxes"]), len(expected["boxes"]))
    pairs = list(_matches(found, expected))
    for side, (own, other) in enumerate(((found, expected), (expected, found))):
        alone = np.delete(own["scores"], [pair[side] for pair in pairs])
        least = other["scores"].min() if len(other["scores"]) >= recipe.max_detections else recipe.score_threshold
        result.borderline += int((alone <= least + limits.score).sum())
        result.missing += int((alone > least + limits.score).sum())
    for mine, partner in pairs:
        result.box = max(result.box, float(np.abs(found["boxes"][mine] - expected["boxes"][partner]).max()))
        for key in ("scores", "mask_scores"):
            if key in expected:
                result.score = max(result.score, abs(float(found[key][mine] - expected[key][partner])))
        if "keypoints" in expected:
            distance = found["keypoints"][mine][:, :2] - expected["keypoints"][partner][:, :2]
            result.keypoint = max(result.keypoint, float(np.linalg.norm(distance, axis=1).max()))
    bad_masks = 0
    if "masks" in expected:
        for mine, partner in pairs:
            a, b = whole([found["masks"][mine], expected["masks"][partner]], result.size)
            # In boxes of whole pixels a mask moves by one where a corner is on the border of two.
            iou, differing = _mask_difference(a, b, slack=recipe.masks == "torchvision")
            result.mask_iou = min(result.mask_iou, iou)
            bad_masks += iou < limits.mask_iou and differing > limits.mask_pixels
    for what, bad in {
        f"{result.missing} without a partner": result.missing > 0,
        f"boxes by {result.box:.3g} px": not result.box <= limits.box,
        f"scores by {result.score:.3g}": not result.score <= limits.score,
        f"{bad_masks} masks, IoU down to {result.mask_iou:.3g}": bad_masks > 0,
        f"keypoints by {result.keypoint:.3g} px": not result.keypoint <= limits.keypoint,
    }.items():
        if bad:
            result.faults.append(what)
    return result


def _matches(found: Found, expected: Found) -> Iterator[tuple[int, int]]:
    """Pairs of indices, by descending score of what was expected."""
    free = np.ones(len(found["boxes"]), bool)
    for other in np.argsort(-expected["scores"], kind="stable"):
        overlap = _ious(expected["boxes"][other], found["boxes"])
        overlap[~free | (found["classes"] != expected["classes"][other])] = 0
        if len(overlap) and overlap.max() > _SAME:
            mine = int(overlap.argmax())
            free[mine] = False
            yield mine, int(other)


def _ious(box: Array, boxes: Array) -> Array:
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    shared = sides.clip(min=0).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    return np.asarray(shared / np.maximum(areas - shared, np.finfo(np.float32).tiny))


def _mask_difference(a: Array, b: Array, slack: bool) -> tuple[float, int]:
    """IoU of two masks (H, W), and the number of pixels that differ; with slack, of those that do from all around, too."""
    union = int((a | b).sum())
    iou = int((a & b).sum()) / union if union else 1.0
    near_a, near_b = ((cv2.dilate(mask.astype(np.uint8), np.ones((3, 3))) > 0) if slack else mask for mask in (a, b))
    return iou, int(((a & ~near_b) | (b & ~near_a)).sum())
