"""Converts the predictions of an image to COCO results and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.structures import Boxes, Instances

from maskrcnn_ext.data.formats.records import keypoints_to_pixel_indices, keypoints_to_subpixel
from maskrcnn_ext.ops.rle import with_byte_counts, with_text_counts
from maskrcnn_ext.ops.rle_masks import RLEMasks


def to_coco(found: Instances, image_id: Any, category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """Returns the COCO results of an image, one dict per object.

    Args:
        found: R objects with ``pred_boxes``, ``scores`` and ``pred_classes``; optional are ``pred_masks`` as RLEMasks, ``pred_keypoints``
            (R, K, 3), ``pred_mask_scores`` (R,) and ``track_ids`` (R,).
        image_id: the id of the image.
        category_ids: the data set's id of each class.

    Example:
        >>> found = Instances((10, 10), pred_boxes=Boxes([[1, 2, 4, 6]]), scores=torch.ones(1), pred_classes=torch.tensor([0]))
        >>> to_coco(found, image_id=7, category_ids=[18])
        [{'image_id': 7, 'category_id': 18, 'bbox': [1.0, 2.0, 3.0, 4.0], 'score': 1.0}]
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
        for result, keypoints in zip(results, found.pred_keypoints.cpu().double().flatten(1).tolist(), strict=True):
            result["keypoints"] = keypoints_to_pixel_indices(keypoints)
    for field, key in (("pred_mask_scores", "mask_score"), ("track_ids", "track_id")):
        if found.has(field):
            for result, value in zip(results, found.get(field).tolist(), strict=True):
                result[key] = value
    return results


def from_coco(results: Sequence[dict[str, Any]], size: tuple[int, int], category_ids: Sequence[int]) -> Instances:
    """Returns the instances of an image's COCO results, in float32: the inverse of :func:`to_coco`.

    Without any object there are no masks or other optional fields.

    Args:
        results: the COCO results of one image.
        size: height and width of the image in pixels.
        category_ids: the data set's id of each class.

    Example:
        >>> result = {"category_id": 18, "bbox": [1.0, 2.0, 3.0, 4.0], "score": 1.0}
        >>> from_coco([result], (10, 10), category_ids=[18]).pred_boxes.tensor
        tensor([[1., 2., 4., 6.]])
    """
    class_of = {category_id: index for index, category_id in enumerate(category_ids)}
    boxes = np.array([result["bbox"] for result in results], dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    found = Instances(size)
    found.pred_boxes = Boxes(torch.from_numpy(boxes).float())
    found.scores = torch.tensor([result["score"] for result in results], dtype=torch.float32)
    found.pred_classes = torch.tensor([class_of[result["category_id"]] for result in results], dtype=torch.int64)
    fields = set(results[0]) if results else set()
    if "segmentation" in fields:
        rles = [with_byte_counts(result["segmentation"]) for result in results]
        found.pred_masks = RLEMasks(rles, size)
    if "keypoints" in fields:
        keypoints = torch.tensor(
            [keypoints_to_subpixel(result["keypoints"]) for result in results], dtype=torch.float64
        )
        found.pred_keypoints = keypoints.reshape(len(results), -1, 3).float()
    if "mask_score" in fields:
        found.pred_mask_scores = torch.tensor([result["mask_score"] for result in results], dtype=torch.float32)
    if "track_id" in fields:
        found.track_ids = torch.tensor([result["track_id"] for result in results], dtype=torch.int64)
    return found
