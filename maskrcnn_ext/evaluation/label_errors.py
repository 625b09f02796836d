"""Finds labels that a model contradicts: missing and spurious objects, wrong classes and bad outlines, each with a score from 0 to 1.

The model must not have seen the labels: its predictions are of a held-out part, or out of fold. As in ObjectLab (arXiv:2309.00832), each
kind of error has a separate score, and each object and detection the kind of its highest score. Two things make the scores comparable:

* Confidence. As in confident learning (arXiv:1911.00068, section 3.1), a score counts in relation to the mean score ``t`` of the detections
  of its class that agree with a label: ``c = min(1, s / t)``. A model that is sure of nothing can still contradict.
* What is normal. A model misses small objects, their masks overlap less, and some images are hard as a whole. The share ``r`` of objects
  that are found and their mean overlap ``m`` are those of the 50 objects of most similar area of the class, weighed as 5 objects, and
  of the other objects of the image. Likewise ``p`` is the share of confident detections of an image that lie on labelled objects.

With IoU between a detection d and an object o, and q(o) the largest ``c(d) * IoU`` over the detections of o's class that agree better with
no other object:

* missing: ``p * c(d) * (1 - share of d inside labelled objects)``, unless d is what q(o) of an object is read from;
* spurious: ``r(o) * (1 - largest c(d) of any class with an IoU of at least 0.1)``: objects like it are found, this one is not;
* wrong class: ``largest c(d) * IoU of another class - q(o)``;
* bad outline: ``c(d) * (1 - IoU / m(o))`` of the detection that belongs to q(o).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrcnn_ext.common.progress import track
from maskrcnn_ext.evaluation.results import Results
from maskrcnn_ext.evaluation.truth import Truth
from maskrcnn_ext.ops.rle import pairwise_iou, segmentation_to_rle

KINDS = ("missing", "spurious", "class", "outline")
_AGREE = 0.5  # IoU from which a detection and an object agree
_BELONGS = 0.1  # IoU from which a detection is of an object whose outline may be bad
_PRIOR = 5  # objects that the objects of similar size count as, beside the others of an image
_NEIGHBOURS = 50  # objects of similar area that define the normal quality
_LEAST = 0.05  # scores below it are no suspicion


@dataclass(frozen=True)
class Suspect:
    """A label that a model contradicts.

    Attributes:
        kind: one of :data:`KINDS`.
        score: from 0 to 1; the higher, the stronger the contradiction.
        image_id: of the image.
        object: index into the annotations of the ground truth; None for a missing object.
        result: index into the results of the detection that contradicts; None for a spurious object.
    """

    kind: str
    score: float
    image_id: Any
    object: int | None
    result: int | None


@dataclass(frozen=True)
class _Image:
    """The D detections and G objects of one image.

    Attributes:
        image_id: its id.
        results: (D) indices into the results.
        objects: (G) indices into the annotations, without crowds.
        iou: (D, G).
        inside: (D) largest share of a detection inside one object or crowd.
        between: (D, D) IoU of detections.
    """

    image_id: Any
    results: NDArray[np.int64]
    objects: NDArray[np.int64]
    iou: NDArray[np.float64]
    inside: NDArray[np.float64]
    between: NDArray[np.float64]


def find_label_errors(truth: Truth, results: Results) -> list[Suspect]:
    """Returns the labels that predictions contradict, the strongest contradiction first.

    Masks are compared if all objects and detections have them, else boxes.

    Args:
        truth: the labels.
        results: predictions of a model that has not seen them, from :func:`maskrcnn_ext.evaluation.results.load_results`. Low scores
            belong to them: an object that is found with a score of 0.1 is not spurious.

    Example:
        >>> box = {"image_id": 1, "category_id": 1, "bbox": [2, 2, 4, 4]}
        >>> content = {"images": [{"id": 1, "height": 9, "width": 9}], "categories": [{"id": 1, "name": "a"}], "annotations": []}
        >>> from maskrcnn_ext.evaluation.truth import load_truth
        >>> find_label_errors(load_truth(content), [{**box, "score": 0.8}])
        [Suspect(kind='missing', score=1.0, image_id=1, object=None, result=0)]
    """
    images = _measure(truth, results)
    label = np.array([found["category_id"] for found in truth.annotations])
    category = np.array([found["category_id"] for found in results])
    confidence = _confidence(images, np.array([found["score"] for found in results], float), category, label)
    area = np.array([found["area"] for found in truth.annotations], float)
    own = {}  # by object: the largest confidence times IoU of its class, the detection, and the IoU
    for image in images:
        weighted = _weighted(image, confidence)
        for column, number in enumerate(image.objects.tolist()):
            agreeing = np.where(category[image.results] == label[number], weighted[:, column], -1.0)
            row = int(agreeing.argmax()) if len(agreeing) else -1
            known = row >= 0 and agreeing[row] > 0
            own[number] = (float(agreeing[row]), row, float(image.iou[row, column])) if known else (0.0, -1, 0.0)
    found_share, usual_iou = _normal(images, own, area, label)
    labelled = [image for image in images if len(image.objects)]
    inside = [image.inside[confidence[image.results] >= _AGREE] >= _AGREE for image in labelled]
    precision = float(np.concatenate(inside).mean()) if any(map(len, inside)) else 1.0
    suspects = []
    for image in images:
        suspects += _of_objects(image, own, confidence, category, label, found_share, usual_iou)
        of_objects = {own[number][1] for number in image.objects.tolist() if own[number][1] >= 0}
        sure = confidence[image.results] >= _AGREE
        on_objects = (_PRIOR * precision + (sure & (image.inside >= _AGREE)).sum()) / (_PRIOR + sure.sum())
        share = on_objects if len(image.objects) else precision  # an image without labels may have been forgotten
        suspects += _missing(image, confidence * share, of_objects)
    return sorted((one for one in suspects if one.score >= _LEAST), key=lambda one: -one.score)


def _measure(truth: Truth, results: Results) -> list[_Image]:
    """Returns the overlaps of each image."""
    masks = truth.allows("segm") and all(found.get("segmentation") for found in results)
    of_image: dict[Any, tuple[list[int], list[int]]] = {image["id"]: ([], []) for image in truth.images}
    for side, records in enumerate((results, truth.annotations)):
        for index, found in enumerate(records):
            of_image[found["image_id"]][side].append(index)
    images = []
    for record in track(truth.images, description="images"):
        rows, columns = of_image[record["id"]]

        def shapes(found: list[dict[str, Any]], size: tuple[int, int] = (record["height"], record["width"])) -> Any:
            if masks:
                return [segmentation_to_rle(one["segmentation"], *size) for one in found]
            return np.array([one["bbox"] for one in found], float).reshape(-1, 4)

        detections, objects = shapes([results[i] for i in rows]), shapes([truth.annotations[i] for i in columns])
        inside = pairwise_iou(detections, objects, [True] * len(columns)).max(axis=1, initial=0)
        single = np.array([not truth.annotations[index]["iscrowd"] for index in columns], bool)
        iou = pairwise_iou(detections, objects)[:, single]
        between = pairwise_iou(detections, detections)
        images.append(_Image(record["id"], np.array(rows, int), np.array(columns, int)[single], iou, inside, between))
    return images


def _weighted(image: _Image, confidence: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns confidence times IoU (D, G); 0 where they hardly touch, or the detection agrees with another object better."""
    best = image.iou.max(axis=1, initial=0)[:, None]
    belongs = (image.iou >= _BELONGS) & ((image.iou == best) | (best < _AGREE))
    return confidence[image.results, None] * np.where(belongs, image.iou, 0.0)


def _confidence(
    images: list[_Image], score: NDArray[np.float64], category: NDArray[Any], label: NDArray[Any]
) -> NDArray[np.float64]:
    """Returns the score of each detection over the mean score of those of its class that agree with a label, at most 1."""
    agrees = np.zeros(len(score), bool)
    for image in images:
        same = category[image.results, None] == label[image.objects]
        agrees[image.results] = ((image.iou >= _AGREE) & same).any(axis=1)
    confidence = score.copy()
    for one in np.unique(category):
        of_class = category == one
        agreeing = score[of_class & agrees]
        if len(agreeing):
            confidence[of_class] /= agreeing.mean()
        elif agrees.any():
            confidence[of_class] /= score[agrees].mean()
        elif len(score):
            confidence[of_class] /= max(score.max(), 1e-9)
    return confidence.clip(0, 1)


def _normal(
    images: list[_Image], own: dict[int, tuple[float, int, float]], area: NDArray[np.float64], label: NDArray[Any]
) -> tuple[dict[int, float], dict[int, float]]:
    """Returns for each object the share of objects like it that are found, and the mean IoU of those."""
    found_share, usual_iou = {}, {}
    numbers = np.array(sorted(own), int)
    sizes = np.log(area[numbers].clip(1e-9))
    overlaps = np.array([own[number][2] for number in numbers.tolist()])
    agrees = overlaps >= _AGREE
    place = {number: position for position, number in enumerate(numbers.tolist())}
    for image in images:
        here = np.array([place[number] for number in image.objects.tolist()], int)
        for position in here.tolist():
            alike = np.flatnonzero(label[numbers] == label[numbers[position]])
            alike = alike[np.argsort(np.abs(sizes[alike] - sizes[position]), kind="stable")[: _NEIGHBOURS + 1]]
            alike, others = alike[alike != position], here[here != position]
            share = agrees[alike].mean() if len(alike) else 0.0
            overlap = overlaps[alike][agrees[alike]].mean() if agrees[alike].any() else 1.0
            number = int(numbers[position])
            found_share[number] = float((_PRIOR * share + agrees[others].sum()) / (_PRIOR + len(others)))
            near = overlaps[others][agrees[others]]
            usual_iou[number] = float((_PRIOR * overlap + near.sum()) / (_PRIOR + len(near)))
    return found_share, usual_iou


def _of_objects(
    image: _Image,
    own: dict[int, tuple[float, int, float]],
    confidence: NDArray[np.float64],
    category: NDArray[Any],
    label: NDArray[Any],
    found_share: dict[int, float],
    usual_iou: dict[int, float],
) -> list[Suspect]:
    """Returns the strongest suspicion against each object."""
    suspects = []
    weighted = _weighted(image, confidence)
    for column, number in enumerate(image.objects.tolist()):
        agreement, row, iou = own[number]
        other = np.where(category[image.results] != label[number], weighted[:, column], 0.0)
        best = int(other.argmax()) if len(other) else -1
        against = float(other[best]) if len(other) else 0.0
        touching = confidence[image.results][weighted[:, column] > 0]
        spurious = found_share[number] * (1 - touching.max(initial=0.0))
        candidates = [Suspect("spurious", float(spurious), image.image_id, number, None)]
        if against > agreement:
            candidates.append(Suspect("class", against - agreement, image.image_id, number, int(image.results[best])))
        if row >= 0:
            detection = int(image.results[row])
            outline = confidence[detection] * max(0.0, 1 - iou / usual_iou[number])
            candidates.append(Suspect("outline", float(outline), image.image_id, number, detection))
        suspects.append(max(candidates, key=lambda one: one.score))
    return suspects


def _missing(image: _Image, confidence: NDArray[np.float64], of_objects: set[int]) -> list[Suspect]:
    """Returns the detections that are on no labelled object; of those that overlap, the strongest.

    Args:
        image: the overlaps.
        confidence: of all detections, times the share of detections that are on objects.
        of_objects: the rows of detections that belong to an object, whose outline they may contradict.
    """
    scores = confidence[image.results] * (1 - image.inside)
    scores[list(of_objects)] = 0
    kept: list[int] = []
    for row in np.argsort(-scores, kind="stable").tolist():
        if not kept or image.between[row, kept].max() < _AGREE:
            kept.append(row)
    return [
        Suspect("missing", float(scores[row]), image.image_id, None, int(image.results[row]))
        for row in kept
        if scores[row] > 0
    ]
