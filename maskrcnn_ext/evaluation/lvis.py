"""LVIS's rules: an image counts for the classes only that its annotators have verified in it."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np

from maskrcnn_ext.common.extras import require
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.evaluation.results import Results, by_image, ranked_by, renumber
from maskrcnn_ext.evaluation.stored_results import columns_of, scores_of
from maskrcnn_ext.evaluation.truth import Truth

# LVIS's limit of detections of an image, over all classes.
MAX_DETECTIONS = 300
_LISTS = ("neg_category_ids", "not_exhaustive_category_ids")
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
    :data:`MAX_DETECTIONS` detections of an image count. The results of one image at a time are read, and dropped when they are matched.

    Args:
        truth: ground truth with the lists of LVIS.
        results: COCO results. Masks are ranked by ``mask_score`` if they have one.
        task: bbox or segm.

    Returns:
        AP, AP50 and AP75, APs, APm and APl by size, APr, APc and APf of rare, common and frequent classes (``frequency`` of the
        categories: r, c or f), in percent; None if there are no objects.

    Raises:
        InputError: hotcoco is not installed, or a list of an image is broken.

    Example::

        lvis_metrics(load_truth("lvis_v1_val.json"), results, "segm")["APr"]
    """
    hotcoco = require("hotcoco", extra="eval", purpose="evaluation by LVIS's rules")
    images = {image["id"]: number for number, image in enumerate(truth.images, start=1)}
    categories = {category["id"]: number for number, category in enumerate(truth.categories, start=1)}
    numbered = [{**category, "id": categories[category["id"]]} for category in truth.categories]
    stream = hotcoco.StreamingEval(numbered, task, lvis_style=True)
    objects = by_image(truth.annotations)
    columns = columns_of(results)
    scores = scores_of(columns, of_masks=task == "segm")
    detections: dict[Any, list[int]] = {}
    for index, image_id in enumerate(columns.image_ids):
        detections.setdefault(image_id, []).append(index)
    for image in truth.images:
        of_image = np.array(detections.get(image["id"], ()), dtype=np.int64)
        best = of_image[np.argsort(-scores[of_image], kind="stable")[:MAX_DETECTIONS]]
        stream.update(
            [{**image, "id": images[image["id"]], **{key: _listed(image, key, categories) for key in _LISTS}}],
            [renumber(found, images, categories) for found in objects.get(image["id"], ())],
            [renumber(found, images, categories) for found in ranked_by(task, [results[index] for index in best])],
        )
    evaluator = stream.finalize()
    evaluator.accumulate()
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator.summarize()
    found = evaluator.get_results()
    return {name: None if found[name] < 0 else 100 * found[name] for name in _METRICS}


def _listed(image: dict[str, Any], key: str, categories: dict[Any, int]) -> list[int]:
    """Returns the numbers of the classes that an image lists."""
    listed = image.get(key, ())
    if not isinstance(listed, list | tuple) or any(isinstance(own, list | dict) for own in listed):
        raise InputError(f"image {image['id']!r}: `{key}` is {listed!r:.100}, expected a list of ids of categories")
    return [categories[own] for own in listed if own in categories]
