"""Runs COCO's evaluation with the fastest installed program that returns COCO's numbers."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from detectron2.evaluation.coco_evaluation import COCOeval_opt, COCOevalMaxDets
from pycocotools.coco import COCO

# The fastest first.
_PACKAGES = {"hotcoco": "hotcoco", "faster-coco-eval": "faster_coco_eval"}


class _DetectronEval(COCOevalMaxDets, COCOeval_opt):
    """Detectron2's evaluation: in C++ if compiled, otherwise that of pycocotools. Its summary allows any limit of detections."""


def backend_name(truth: COCO, *, fast: bool) -> str:
    """Returns which program :func:`run_coco_eval` uses: hotcoco or faster-coco-eval if installed, else Detectron2's; or pycocotools."""
    if not fast:
        return "pycocotools"
    # Both accept only numbers as ids.
    if all(isinstance(key, int) for key in (*truth.imgs, *truth.cats)):
        for name, package in _PACKAGES.items():
            if find_spec(package):
                return name
    return "Detectron2"


def run_coco_eval(
    truth: COCO,
    results: Sequence[dict[str, Any]],
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
        results: COCO results. The area of a mask is measured, not taken from its box.
        task: bbox, segm or keypoints.
        fast: whether a program other than pycocotools may be used.
        max_detections: limit of detections per image and class; for keypoints it is always 20.
        sigmas: of the keypoints; COCO's if empty.
        img_ids: ids of the images to evaluate; None for all.

    Returns:
        An object like pycocotools' COCOeval after ``summarize``: ``stats``, ``eval`` and ``params`` are set.
    """
    name = backend_name(truth, fast=fast) if results and truth.anns else "pycocotools"
    # With a box, the area of a mask would be that of its box.
    results = [{key: value for key, value in result.items() if task != "segm" or key != "bbox"} for result in results]
    evaluator: Any
    with contextlib.redirect_stdout(io.StringIO()):
        if name == "hotcoco":
            import hotcoco

            hot_truth = hotcoco.COCO({**truth.dataset, "annotations": list(truth.anns.values())})
            evaluator = hotcoco.COCOeval(hot_truth, hot_truth.load_res(results), task)
            evaluator.params.catIds = sorted(truth.getCatIds())
        elif name == "faster-coco-eval":
            import faster_coco_eval as faster

            # The annotations are copied, because faster-coco-eval changes them.
            fast_truth = faster.COCO({**truth.dataset, "annotations": [dict(found) for found in truth.anns.values()]})
            evaluator = faster.COCOeval_faster(fast_truth, fast_truth.loadRes(results), task, print_function=print)
            evaluator.params.catIds = sorted(truth.getCatIds())
        else:
            detections = truth.loadRes(results) if results else COCO()
            evaluator_class = _DetectronEval if name == "Detectron2" else COCOevalMaxDets
            evaluator = evaluator_class(truth, detections, task)
        if task != "keypoints":
            evaluator.params.maxDets = [1, 10, max_detections]
        elif sigmas:
            evaluator.params.kpt_oks_sigmas = np.array(sigmas)
        if img_ids is not None:
            evaluator.params.imgIds = list(img_ids)
        evaluator.evaluate()
        evaluator.accumulate()
    with warnings.catch_warnings():  # of hotcoco, of limits and sigmas that are not COCO's: they are asked for
        warnings.filterwarnings("ignore", message="hotcoco:")
        evaluator.summarize()
    return evaluator
