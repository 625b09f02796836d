"""Chooses the images whose labels would teach a model most: uncertain ones, on which views disagree, and that differ from each other and
from those that are labelled.

Two stages, as in PPAL (CVPR 2024, arXiv:2211.11612): the images of the highest score are candidates, a few times as many as are wanted,
and of these the ones are taken that are furthest apart in the features of the backbone (k-center greedy, arXiv:1708.00489, algorithm 1).

The score of an image is the sum over its detections, in "uncertain objects", of

* uncertainty: the binary entropy of the score, in bits, 1 at a score of 0.5;
* disagreement: how much the score exceeds the confirmation by the other view, ``|s - max(s' * IoU)|`` over its detections of the class. The
  other view is the mirror image, as in CALD (arXiv:2103.10374), or another model of a cross-validation.

It is a sum because each image costs one place of the selection, however crowded: crowded images come first.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.structures import Instances
from numpy.typing import NDArray

from maskrcnn_ext.common.progress import Progress
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.inference.predictor import Predictor
from maskrcnn_ext.inference.sources import InputImage
from maskrcnn_ext.ops.rle import pairwise_iou

# Detections below it are mostly background, and there are many of them.
_LEAST_SCORE = 0.1
# Candidates for each image that is chosen; PPAL's own ablation finds 2 to 6 alike.
_CANDIDATES = 4


@dataclass(frozen=True)
class View:
    """The N detections of one model in one view of an image.

    Attributes:
        boxes: (N, 4) float64, x0, y0, x1, y1 in pixels of the image that is not mirrored.
        scores: (N) float64.
        classes: (N) int64.
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    classes: NDArray[np.int64]

    @classmethod
    def of(cls, found: Instances, *, mirrored: bool = False) -> View:
        """Returns the detections of an image, of which those of a mirror image are turned back."""
        kept = found[found.scores >= _LEAST_SCORE]
        boxes = kept.pred_boxes.tensor.double().numpy()
        if mirrored:
            boxes = np.stack(
                [found.image_size[1] - boxes[:, 2], boxes[:, 1], found.image_size[1] - boxes[:, 0], boxes[:, 3]], 1
            )
        return cls(boxes, kept.scores.double().numpy(), kept.pred_classes.numpy())


@dataclass(frozen=True)
class ScoredImage:
    """An image and the value of its labels for the training.

    Attributes:
        item: the image.
        uncertainty: sum of the entropies of its detections, in bits.
        disagreement: sum over its detections of the part that the other views do not confirm.
        objects: number of its detections with a score of at least 0.5.
        feature: (F) float32, the mean features of its backbone, of length 1.
    """

    item: InputImage
    uncertainty: float
    disagreement: float
    objects: int
    feature: NDArray[np.float32]

    @property
    def score(self) -> float:
        """Uncertainty plus disagreement."""
        return self.uncertainty + self.disagreement


def score_images(
    members: Sequence[Predictor], items: Sequence[InputImage]
) -> tuple[list[ScoredImage], dict[str, InputError]]:
    """Scores images.

    Args:
        members: one model, whose second view is the mirror image; or several of a cross-validation, which are compared with each other.
        items: the images.

    Returns:
        The scores in the order of the images; and by file name the errors of those that cannot be read.
    """
    scored: list[ScoredImage] = []
    failed: dict[str, InputError] = {}
    with contextlib.ExitStack() as stack:
        features = stack.enter_context(_backbone_features(members[0]))
        progress = stack.enter_context(Progress(len(items), description="images"))
        for item in items:
            try:
                pixels = members[0].pixels(item.image)
            except InputError as error:
                failed[item.file_name] = error
                continue
            finally:
                progress.step(failed=len(failed))
            views = [View.of(_predict(members[0], pixels))]
            feature = features[-1]
            if len(members) == 1:
                views.append(View.of(_predict(members[0], pixels[:, ::-1].copy()), mirrored=True))
            views += [View.of(_predict(member, pixels)) for member in members[1:]]
            features.clear()
            first = views[0]
            others = [disagreement(first, view) for view in views[1:]]
            objects = int((first.scores >= 0.5).sum())
            scored.append(ScoredImage(item, uncertainty(first), float(np.mean(others)), objects, feature))
    return scored, failed


def uncertainty(view: View) -> float:
    """Returns the sum of the binary entropies of the scores, in bits.

    Example:
        >>> uncertainty(View(np.zeros((2, 4)), np.array([0.5, 1.0]), np.zeros(2, int)))
        1.0
    """
    p = view.scores.clip(1e-9, 1 - 1e-9)
    return round(float(-(p * np.log2(p) + (1 - p) * np.log2(1 - p)).sum()), 6)


def disagreement(one: View, other: View) -> float:
    """Returns how much two views of an image differ: half of the sum over the detections of both of the part that the other lacks.

    Example:
        >>> view = View(np.array([[0.0, 0, 4, 4]]), np.array([0.8]), np.array([0]))
        >>> disagreement(view, view), disagreement(view, View(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int)))
        (0.0, 0.4)
    """
    overlaps = pairwise_iou(_xywh(one.boxes), _xywh(other.boxes)) * (one.classes[:, None] == other.classes)
    confirmed = (
        (overlaps * other.scores).max(axis=1, initial=0),
        (overlaps * one.scores[:, None]).max(axis=0, initial=0),
    )
    lacking = np.abs(one.scores - confirmed[0]).sum() + np.abs(other.scores - confirmed[1]).sum()
    return round(float(lacking) / 2, 6)


def image_features(predictor: Predictor, items: Sequence[InputImage]) -> NDArray[np.float32]:
    """Returns the features (N, F) of images as :class:`ScoredImage` has them; images that cannot be read are left out."""
    found: list[NDArray[np.float32]] = []
    with _backbone_features(predictor) as features, Progress(len(items), description="labelled images") as progress:
        for item in items:
            with contextlib.suppress(InputError):
                _predict(predictor, predictor.pixels(item.image))
                found.append(features[-1])
                features.clear()
            progress.step()
    return np.stack(found) if found else np.zeros((0, 0), np.float32)


def choose(scored: Sequence[ScoredImage], count: int, labelled: NDArray[np.float32] | None = None) -> list[int]:
    """Returns the indices of the images to label, in the order of their choice: far apart, among those of the highest scores.

    Args:
        scored: the images.
        count: how many to choose; all if there are fewer.
        labelled: (L, F) features of the images that are labelled already, from which the chosen ones shall differ, too; None or none if
            they are unknown.
    """
    order = sorted(range(len(scored)), key=lambda index: -scored[index].score)[: _CANDIDATES * count]
    if not order:
        return []
    features = np.stack([scored[index].feature for index in order])
    return [order[index] for index in k_center_greedy(features, count, labelled)]


def k_center_greedy(features: NDArray[np.float32], count: int, centres: NDArray[np.float32] | None = None) -> list[int]:
    """Returns the indices of points that are far apart: again and again the one furthest from the centres and from those before.

    Args:
        features: (N, F).
        count: how many; all if there are fewer.
        centres: (L, F); without any, the first point is the first.

    Example:
        >>> k_center_greedy(np.float32([[0], [1], [9], [10]]), 3)
        [0, 3, 1]
        >>> k_center_greedy(np.float32([[0], [1], [9], [10]]), 2, centres=np.float32([[0]]))
        [3, 1]
    """
    distance = np.full(len(features), np.inf)
    for centre in centres if centres is not None else ():
        distance = np.minimum(distance, np.linalg.norm(features - centre, axis=1))
    chosen: list[int] = []
    while len(chosen) < min(count, len(features)):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(features - features[chosen[-1]], axis=1))
        distance[chosen] = -1
    return chosen


@contextlib.contextmanager
def _backbone_features(predictor: Predictor) -> Iterator[list[NDArray[np.float32]]]:
    """Yields a list that gets the mean features of each image that the model predicts, level by level, of length 1."""
    found: list[NDArray[np.float32]] = []

    def note(_: Any, __: Any, maps: dict[str, torch.Tensor]) -> None:
        means = torch.cat([each.float().mean(dim=(2, 3)) for each in maps.values()], dim=1)
        found.extend(torch.nn.functional.normalize(means, dim=1).cpu().numpy())

    handle = predictor.model.backbone.register_forward_hook(note)
    try:
        yield found
    finally:
        handle.remove()


def _predict(predictor: Predictor, pixels: np.ndarray) -> Instances:
    return next(predictor.run([predictor.prepare(pixels)]))


def _xywh(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
