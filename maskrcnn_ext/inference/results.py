"""Predictions of an image to COCO's results and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.structures import Boxes, Instances

from maskrcnn_ext.ops.rle import with_byte_counts, with_text_counts
from maskrcnn_ext.ops.rle_masks import RLEMasks


def to_coco(found: Instances, image_id: Any, category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """Returns the results of an image, one dict an object, as COCO's results files hold them.

    Args:
        found: with ``pred_boxes``, ``scores`` and ``pred_classes``; ``pred_masks`` as RLEMasks, ``pred_keypoints`` (R, K, 3),
            ``pred_mask_scores`` and ``track_ids`` (R) where the model gives them.
        image_id: the image's.
        category_ids: the data set's id of every class.
    """
    boxes = found.pred_boxes.tensor.cpu().double().numpy().copy()
    boxes[:, 2:] -= boxes[:, :2]
    results: list[dict[str, Any]] = [
        {"image_id": image_id, "category_id": category_ids[category], "bbox": box, "score": score}
        for category, box, score in zip(found.pred_classes.tolist(), boxes.tolist(), found.scores.tolist(), strict=True)
    ]
    if found.has("pred_masks"):
        for result, rle in zip(results, found.pred_masks.rles, strict=True):
            result["segmentation"] = with_text_counts(rle)
    if found.has("pred_keypoints") and results:
        points = found.pred_keypoints.cpu().double().numpy().copy()
        points[:, :, :2] -= 0.5  # COCO's coordinates are those of pixels, whose centres are at whole numbers
        for result, own in zip(results, points.reshape(len(points), -1).tolist(), strict=True):
            result["keypoints"] = own
    for field, key in (("pred_mask_scores", "mask_score"), ("track_ids", "track_id")):
        if found.has(field):
            for result, value in zip(results, found.get(field).tolist(), strict=True):
                result[key] = value
    return results


def from_coco(results: Sequence[dict[str, Any]], size: tuple[int, int], category_ids: Sequence[int]) -> Instances:
    """Makes of an image's results what :func:`to_coco` was given, as float32. The fields of no objects are boxes, scores and classes.

    Args:
        results: of one image.
        size: its height and width in pixels.
        category_ids: the data set's id of every class.
    """
    index = {own: number for number, own in enumerate(category_ids)}
    boxes = np.array([result["bbox"] for result in results], dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    found = Instances(size)
    found.pred_boxes = Boxes(torch.from_numpy(boxes).float())
    found.scores = torch.tensor([result["score"] for result in results], dtype=torch.float32)
    found.pred_classes = torch.tensor([index[result["category_id"]] for result in results], dtype=torch.int64)
    held = set(results[0]) if results else set()
    if "segmentation" in held:
        rles = [with_byte_counts(result["segmentation"]) for result in results]
        found.pred_masks = RLEMasks(rles, size)
    if "keypoints" in held:
        points = torch.tensor([result["keypoints"] for result in results], dtype=torch.float64)
        points = points.reshape(len(results), -1, 3)
        points[:, :, :2] += 0.5
        found.pred_keypoints = points.float()
    if "mask_score" in held:
        found.pred_mask_scores = torch.tensor([result["mask_score"] for result in results], dtype=torch.float32)
    if "track_id" in held:
        found.track_ids = torch.tensor([result["track_id"] for result in results], dtype=torch.int64)
    return found
