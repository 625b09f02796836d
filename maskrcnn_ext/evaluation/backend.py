"""Runs COCO's evaluation with the fastest installed program that returns COCO's numbers."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from detectron2.evaluation.coco_evaluation import COCOeval_opt, COCOevalMaxDets
from pycocotools.coco import COCO

from maskrcnn_ext.evaluation.results import Results, ranked_by, renumber
from maskrcnn_ext.evaluation.truth import Truth

# The fastest first.
_PACKAGES = {"hotcoco": "hotcoco", "faster-coco-eval": "faster_coco_eval"}


class _DetectronEval(COCOevalMaxDets, COCOeval_opt):
    """Detectron2's evaluation: in C++ if compiled, otherwise that of pycocotools. Its summary allows any limit of detections."""


def backend_name(*, fast: bool) -> str:
    """Returns which program :func:`run_coco_eval` uses: hotcoco or faster-coco-eval if installed, else Detectron2's; or pycocotools."""
    if not fast:
        return "pycocotools"
    return next((name for name, package in _PACKAGES.items() if find_spec(package)), "Detectron2")


def run_coco_eval(
    truth: COCO,
    results: Mapping[Any, Results],
    task: str,
    *,
    fast: bool = True,
    max_detections: int = 100,
    sigmas: Sequence[float] = (),
    img_ids: Sequence[Any] | None = None,
) -> Any:
    """Evaluates results and prints COCO's table.

    Args:
        truth: the ground truth with all fields, as :class:`maskrcnn_ext.evaluation.truth.Truth` has them.
        results: COCO results by the id of their image. Masks are ranked by ``mask_score`` if they have one, and their area is measured,
            not taken from their box. hotcoco takes the results of one image at a time; the others need all of them in memory.
        task: bbox, segm or keypoints.
        fast: whether a program other than pycocotools may be used.
        max_detections: limit of detections per image and class; for keypoints it is always 20.
        sigmas: of the keypoints; COCO's if empty.
        img_ids: ids of the images to evaluate; None for all.

    Returns:
        An object like pycocotools' COCOeval after ``summarize``: ``stats``, ``eval`` and ``params`` are set.
    """
    name = backend_name(fast=fast) if any(results.values()) and truth.anns else "pycocotools"
    if name in _PACKAGES and not all(isinstance(key, int) for key in (*truth.imgs, *truth.cats)):
        truth, results, img_ids = _number_ids(truth, results, img_ids)
    evaluator: Any
    with contextlib.redirect_stdout(io.StringIO()):
        if name == "hotcoco":
            import hotcoco

            params = hotcoco.Params(task)
            _set_limits(params, task, max_detections, sigmas)
            stream = hotcoco.StreamingEval(truth.loadCats(sorted(truth.getCatIds())), task, params=params)
            for image_id in truth.imgs if img_ids is None else img_ids:
                found = ranked_by(task, results.get(image_id, ()))
                stream.update([truth.imgs[image_id]], truth.imgToAnns.get(image_id, []), found)
            evaluator = stream.finalize()
        else:
            evaluator = _evaluate_in_memory(name, truth, results, task)
            _set_limits(evaluator.params, task, max_detections, sigmas)
            if img_ids is not None:
                evaluator.params.imgIds = list(img_ids)
            evaluator.evaluate()
        evaluator.accumulate()
    with warnings.catch_warnings():  # of hotcoco, of limits and sigmas that are not COCO's: they are set on purpose
        warnings.filterwarnings("ignore", message="hotcoco:")
        evaluator.summarize()
    return evaluator


def _evaluate_in_memory(name: str, truth: COCO, results: Mapping[Any, Results], task: str) -> Any:
    """Returns an evaluator of all results that has not run."""
    found = [result for of_image in results.values() for result in ranked_by(task, of_image)]
    if name == "faster-coco-eval":
        import faster_coco_eval as faster

        # The annotations are copied, because faster-coco-eval changes them.
        fast_truth = faster.COCO({**truth.dataset, "annotations": [dict(one) for one in truth.anns.values()]})
        evaluator = faster.COCOeval_faster(fast_truth, fast_truth.loadRes(found), task, print_function=print)
        evaluator.params.catIds = sorted(truth.getCatIds())
        return evaluator
    evaluator_class = _DetectronEval if name == "Detectron2" else COCOevalMaxDets
    return evaluator_class(truth, truth.loadRes(found) if found else COCO(), task)


def _set_limits(params: Any, task: str, max_detections: int, sigmas: Sequence[float]) -> None:
    if task != "keypoints":
        params.maxDets = [1, 10, max_detections]
    elif sigmas:
        params.kpt_oks_sigmas = np.array(sigmas)


def _number_ids(
    truth: COCO, results: Mapping[Any, Results], img_ids: Sequence[Any] | None
) -> tuple[COCO, Mapping[int, Results], Sequence[int] | None]:
    """Returns the arguments with numbers as ids of images and categories, in the same order; the fast programs accept no text."""
    images = {key: number for number, key in enumerate(sorted(truth.imgs), start=1)}
    categories = {key: number for number, key in enumerate(sorted(truth.cats), start=1)}
    numbered = Truth(
        "",
        [{**image, "id": images[image["id"]]} for image in truth.imgs.values()],
        [{**category, "id": categories[category["id"]]} for category in truth.cats.values()],
        [renumber(annotation, images, categories) for annotation in truth.anns.values()],
    )
    return (
        numbered.as_coco(),
        _NumberedResults(results, images, categories),
        img_ids and [images[key] for key in img_ids],
    )


class _NumberedResults(Mapping[int, Results]):
    """Results by the number of their image; those of an image are renumbered when they are read."""

    def __init__(
        self, results: Mapping[Any, Results], images: Mapping[Any, int], categories: Mapping[Any, int]
    ) -> None:
        self._results, self._images, self._categories = results, images, categories
        self._keys = {images[key]: key for key in results if key in images}

    def __getitem__(self, number: int) -> Results:
        return [renumber(one, self._images, self._categories) for one in self._results[self._keys[number]]]

    def __iter__(self) -> Iterator[int]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)
