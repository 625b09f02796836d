"""LVIS's rules: an image counts for the classes only that its annotators have verified in it."""

from __future__ import annotations

import contextlib
import io

from maskrcnn_ext.common.extras import require
from maskrcnn_ext.evaluation.results import Results, by_mask_score
from maskrcnn_ext.evaluation.truth import Truth

# LVIS's limit of detections of an image, over all classes.
MAX_DETECTIONS = 300
_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf")


def has_lvis_rules(truth: Truth) -> bool:
    """Returns whether the images name the classes that are verified in them, as those of LVIS do.

    Example:
        >>> has_lvis_rules(Truth("photos", [{"id": 1}], [], []))
        False
    """
    return any("neg_category_ids" in image for image in truth.images)


def lvis_metrics(truth: Truth, results: Results, task: str) -> dict[str, float | None]:
    """Measures boxes or masks by the rules of LVIS (CVPR 2019, arXiv:1908.03195, section 3.1).

    Detections of a class count in images that have objects of it, or list it in ``neg_category_ids``; in images that list it in
    ``not_exhaustive_category_ids``, detections without an object do not count. Images without these lists have verified no class. At most
    :data:`MAX_DETECTIONS` detections of an image count.

    Args:
        truth: ground truth with the lists of LVIS.
        results: COCO results.
        task: bbox or segm.

    Returns:
        AP, AP50 and AP75, APs, APm and APl by size, APr, APc and APf of rare, common and frequent classes (``frequency`` of the
        categories: r, c or f), in percent; None if there are no objects.

    Raises:
        InputError: hotcoco is not installed.

    Example::

        lvis_metrics(load_truth("lvis_v1_val.json"), results, "segm")["APr"]
    """
    hotcoco = require("hotcoco", extra="eval", purpose="evaluation by LVIS's rules")
    images = [{"neg_category_ids": [], "not_exhaustive_category_ids": [], **image} for image in truth.images]
    content = {"images": images, "categories": truth.categories, "annotations": truth.annotations}
    if task == "segm":  # with a box, the area of a mask would be that of its box
        results = [{key: value for key, value in by_mask_score(result).items() if key != "bbox"} for result in results]
    known = hotcoco.COCO(content)
    evaluator = hotcoco.LVISEval(known, hotcoco.LVISResults(known, results, max_dets=MAX_DETECTIONS), task)
    evaluator.evaluate()
    evaluator.accumulate()
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator.summarize()
    found = evaluator.get_results()
    return {name: None if found[name] < 0 else 100 * found[name] for name in _METRICS}
