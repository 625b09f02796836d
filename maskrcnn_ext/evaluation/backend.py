"""COCO's evaluation by the fastest program that is installed and gives COCO's numbers."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from detectron2.evaluation.coco_evaluation import COCOeval_opt, COCOevalMaxDets
from pycocotools.coco import COCO


class _DetectronEval(COCOevalMaxDets, COCOeval_opt):
    """Detectron2's: in C++ where that is compiled, pycocotools' where it is not, with a summary for any limit of detections."""


def backend_name(truth: COCO, *, fast: bool) -> str:
    """Returns which program :func:`run_coco_eval` uses: faster-coco-eval, where it is installed, or Detectron2's; else pycocotools."""
    if not fast:
        return "pycocotools"
    # Its index takes nothing but numbers.
    is_able = find_spec("faster_coco_eval") and all(isinstance(own, int) for own in (*truth.imgs, *truth.cats))
    return "faster-coco-eval" if is_able else "Detectron2"


def run_coco_eval(
    truth: COCO,
    results: list[dict[str, Any]],
    task: str,
    *,
    fast: bool = True,
    max_detections: int = 100,
    sigmas: Sequence[float] = (),
    img_ids: Sequence[Any] | None = None,
) -> Any:
    """Evaluates results and prints COCO's table.

    Args:
        truth: complete, as :class:`maskrcnn_ext.evaluation.truth.Truth` has it.
        results: COCO results; the area of a mask is its own, not its box's.
        task: bbox, segm or keypoints.
        fast: whether another program than pycocotools may be used.
        max_detections: how many of an image and class count; of keypoints 20 do.
        sigmas: of the keypoints; none for COCO's.
        img_ids: of the images that count; None for all.

    Returns:
        What pycocotools' COCOeval is after ``summarize``: ``stats``, ``eval`` and ``params`` are set.
    """
    name = backend_name(truth, fast=fast) if results and truth.anns else "pycocotools"
    own = [{key: value for key, value in result.items() if task != "segm" or key != "bbox"} for result in results]
    evaluator: Any
    with contextlib.redirect_stdout(io.StringIO()):
        if name == "faster-coco-eval":
            import faster_coco_eval as faster

            # Copies of the objects, as it writes into them.
            fast_truth = faster.COCO({**truth.dataset, "annotations": [dict(found) for found in truth.anns.values()]})
            evaluator = faster.COCOeval_faster(fast_truth, fast_truth.loadRes(own), task, print_function=print)
            evaluator.params.catIds = sorted(truth.getCatIds())
        else:
            of_results = truth.loadRes(own) if own else COCO()
            kind = _DetectronEval if name == "Detectron2" else COCOevalMaxDets
            evaluator = kind(truth, of_results, task)
        if task != "keypoints":
            evaluator.params.maxDets = [1, 10, max_detections]
        elif sigmas:
            evaluator.params.kpt_oks_sigmas = np.array(sigmas)
        if img_ids is not None:
            evaluator.params.imgIds = list(img_ids)
        evaluator.evaluate()
        evaluator.accumulate()
    evaluator.summarize()
    return evaluator
