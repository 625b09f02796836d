"""Boundary AP: COCO's AP in which a match must also agree along the object's outline."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from maskrcnn_ext.evaluation.average_precision import average_precisions, mean
from maskrcnn_ext.evaluation.matching import IOUS, match
from maskrcnn_ext.evaluation.overlaps import pair_up
from maskrcnn_ext.evaluation.results import load_results
from maskrcnn_ext.evaluation.truth import TruthLike, load_truth


def boundary_ap(truth: TruthLike, predictions: list[dict[str, Any]], *, max_detections: int = 100) -> dict[str, float]:
    """Evaluates masks by the lower of mask IoU and boundary IoU, as the paper's Boundary AP (arXiv:2103.16562, section 5.2).

    Args:
        truth: the ground truth, see :func:`load_truth`.
        predictions: COCO results with ``segmentation``.
        max_detections: how many of an image and class count.

    Returns:
        ``AP``, ``AP50`` and ``AP75`` in percent; 0 where there are no predictions, nan where there is no object.
    """
    known = load_truth(truth)
    found = load_results(predictions, known)
    ap, _, _ = average_precisions(match(pair_up(known, found, "boundary", max_detections=max_detections), IOUS))
    return {name: 100 * mean(np.asarray(values)) for name, values in (("AP", ap), ("AP50", ap[0]), ("AP75", ap[5]))}


def main() -> None:
    """Prints the Boundary AP of a results file."""
    import json
    from pathlib import Path

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("truth", help="COCO annotation file, or a data set")
    parser.add_argument("results", help="COCO results file, such as inference/coco_instances_results.json of a run")
    parser.add_argument("--max-detections", type=int, default=100, help="how many of an image and class count")
    args = parser.parse_args()
    results = json.loads(Path(args.results).read_text())
    for name, value in boundary_ap(args.truth, results, max_detections=args.max_detections).items():
        print(f"boundary {name} {value:.2f}")


if __name__ == "__main__":
    main()
