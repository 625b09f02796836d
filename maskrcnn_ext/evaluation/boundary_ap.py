"""Boundary AP: COCO's AP with matches that must also agree along the outline of the object."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from maskrcnn_ext.evaluation.average_precision import IOUS, average_precisions, match, nan_mean
from maskrcnn_ext.evaluation.overlaps import pair_up
from maskrcnn_ext.evaluation.results import load_results
from maskrcnn_ext.evaluation.truth import TruthLike, load_truth


def boundary_ap(truth: TruthLike, predictions: list[dict[str, Any]], *, max_detections: int = 100) -> dict[str, float]:
    """Evaluates masks by the lower of mask IoU and boundary IoU: Boundary AP (arXiv:2103.16562, section 5.2).

    Args:
        truth: the ground truth, in any form that :func:`load_truth` accepts.
        predictions: COCO results with ``segmentation``.
        max_detections: limit of detections per image and class.

    Returns:
        ``AP``, ``AP50`` and ``AP75`` in percent; 0 without predictions, nan without objects.

    Example:
        >>> cat = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 2, 4, 4], "segmentation": [[2, 2, 6, 2, 6, 6, 2, 6]]}
        >>> image = {"id": 1, "height": 8, "width": 8}
        >>> truth = {"images": [image], "categories": [{"id": 1, "name": "cat"}], "annotations": [cat]}
        >>> round(boundary_ap(truth, [{**cat, "score": 0.9}])["AP"])
        100
    """
    known = load_truth(truth)
    found = load_results(predictions, known)
    ap, _, _ = average_precisions(match(pair_up(known, found, "boundary", max_detections=max_detections), IOUS))
    return {name: 100 * nan_mean(np.asarray(values)) for name, values in (("AP", ap), ("AP50", ap[0]), ("AP75", ap[5]))}


def main() -> None:
    """Prints the Boundary AP of a results file."""
    import json
    from pathlib import Path

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("truth", help="COCO annotation file, or a dataset")
    parser.add_argument("results", help="COCO results file, such as inference/coco_instances_results.json of a run")
    parser.add_argument(
        "--max-detections", type=int, default=100, help="limit of detections per image and class (default: %(default)s)"
    )
    args = parser.parse_args()
    results = json.loads(Path(args.results).read_text())
    for name, value in boundary_ap(args.truth, results, max_detections=args.max_detections).items():
        print(f"boundary {name} {value:.2f}")


if __name__ == "__main__":
    main()
