"""Fuses the predictions that several models make for one image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from detectron2.structures import Boxes, Instances

from maskrcnn_ext.ops.rle import RLE, pairwise_iou, rle_boxes
from maskrcnn_ext.ops.rle_masks import RLEMasks
from maskrcnn_ext.ops.rle_segments import Segments, rle_window


def fuse_predictions(found: Sequence[Instances], *, agreement: float = 0.55) -> Instances:
    """Fuses predictions object by object: weighted boxes fusion (Solovyev et al., arXiv:1910.13302, section 3), extended to masks.

    Detections of one class whose masks (boxes, without masks) have an IoU of `agreement` or more are one object, at most one of each
    model; the highest scores come first. Its box and keypoints are the means of its detections, weighted by their scores. A pixel is in
    its mask if detections with at least half of the weight contain it. Its score is the sum of the scores, divided by the number of
    models: the mean, reduced by the share of models that did not find the object. Masks are only decoded within the boxes of an object's
    detections.

    Args:
        found: the objects that each model found, with ``pred_boxes``, ``scores`` and ``pred_classes``; optional are ``pred_masks`` as
            RLEMasks and ``pred_keypoints`` (R, K, 3).
        agreement: least IoU, above 0 and up to 1.

    Returns:
        The objects of the image, the highest score first, in float32.

    Example:
        >>> one, other = (
        ...     Instances((9, 9), pred_boxes=Boxes([[0, 0, 4, side]]), scores=torch.tensor([score]), pred_classes=torch.tensor([0]))
        ...     for side, score in ((4, 0.9), (5, 0.3))
        ... )
        >>> fused = fuse_predictions([one, other])
        >>> fused.pred_boxes.tensor.tolist(), fused.scores.tolist()
        ([[0.0, 0.0, 4.0, 4.25]], [0.6000000238418579])
    """
    size = found[0].image_size
    some = [(index, each) for index, each in enumerate(found) if len(each)]
    if not some:
        return found[0]
    model = np.concatenate([np.full(len(each), index) for index, each in some])
    classes = torch.cat([each.pred_classes for _, each in some]).numpy()
    scores = torch.cat([each.scores for _, each in some]).double().numpy()
    boxes = torch.cat([each.pred_boxes.tensor for _, each in some]).double().numpy()
    rles = [rle for _, each in some for rle in each.pred_masks.rles] if some[0][1].has("pred_masks") else None
    clusters: list[np.ndarray] = []
    for label in np.unique(classes):
        members = np.flatnonzero(classes == label)
        clusters += [
            members[part]
            for part in _cluster(_overlaps(boxes, rles, members), scores[members], model[members], agreement)
        ]
    fused_scores = np.array([scores[cluster].sum() / len(found) for cluster in clusters])
    clusters = [clusters[index] for index in np.argsort(-fused_scores, kind="stable")]
    fused = Instances(size)
    shares = [scores[cluster] / scores[cluster].sum() for cluster in clusters]
    fused.pred_boxes = Boxes(_mean(boxes, clusters, shares))
    fused.scores = torch.from_numpy(np.sort(fused_scores)[::-1].copy()).float()
    fused.pred_classes = torch.from_numpy(np.array([classes[cluster[0]] for cluster in clusters]))
    if rles is not None:
        fused.pred_masks = RLEMasks(
            [_vote([rles[i] for i in cluster], share, size) for cluster, share in zip(clusters, shares, strict=True)],
            size,
        )
    if some[0][1].has("pred_keypoints"):
        keypoints = torch.cat([each.pred_keypoints for _, each in some]).double().numpy()
        fused.pred_keypoints = _mean(keypoints, clusters, shares)
    return fused


def _overlaps(boxes: np.ndarray, rles: list[RLE] | None, members: np.ndarray) -> np.ndarray:
    """Returns the IoU (D, D) of some of the detections."""
    if rles is not None:
        chosen = [rles[index] for index in members]
        return pairwise_iou(chosen, chosen)
    corners = boxes[members].copy()
    corners[:, 2:] -= corners[:, :2]
    return pairwise_iou(corners, corners)


def _cluster(overlaps: np.ndarray, scores: np.ndarray, model: np.ndarray, agreement: float) -> list[list[int]]:
    """Groups detections of one class; the first of a group has its highest score, and represents it."""
    clusters: list[list[int]] = []
    for index in np.argsort(-scores, kind="stable").tolist():
        best, cluster = agreement, None
        for other in clusters:
            overlap = overlaps[index, other[0]]
            if overlap >= best and all(model[member] != model[index] for member in other):
                best, cluster = overlap, other
        if cluster is None:
            clusters.append([index])
        else:
            cluster.append(index)
    return clusters


def _mean(values: np.ndarray, clusters: Sequence[np.ndarray], shares: Sequence[np.ndarray]) -> torch.Tensor:
    """Returns the weighted mean of each cluster's values (D, ...), in float32."""
    means = [np.tensordot(share, values[cluster], axes=1) for cluster, share in zip(clusters, shares, strict=True)]
    return torch.from_numpy(np.stack(means)).float()


def _vote(rles: list[RLE], shares: np.ndarray, size: tuple[int, int]) -> RLE:
    """Returns the pixels that masks with at least half of the weight contain."""
    if len(rles) == 1:
        return rles[0]
    boxes = rle_boxes(rles)
    x0, y0 = (int(edge) for edge in boxes[:, :2].min(axis=0))
    x1, y1 = (math.ceil(edge) for edge in boxes[:, 2:].max(axis=0))
    votes = sum(share * rle_window(rle, x0, y0, x1, y1) for share, rle in zip(shares, rles, strict=True))
    return Segments.of_window(np.asarray(votes) >= 0.5 - 1e-9, x0, y0).to_rle(size)
