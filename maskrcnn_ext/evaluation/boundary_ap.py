"""Boundary AP: COCO's AP in which a match must also agree along the object's outline."""

from __future__ import annotations

import argparse
import contextlib
import io
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from maskrcnn_ext.evaluation.coco import by_mask_score

# Of the image's diagonal: how far from the outline a pixel still belongs to the boundary, as in the paper.
_DILATION_RATIO = 0.02


def boundary_rle(mask: dict[str, Any]) -> dict[str, Any]:
    """The band inside a mask's outline (Boundary IoU, CVPR 2021, arXiv:2103.16562, section 4), from and to compressed RLE."""
    height, width = mask["size"]
    distance = max(1, round(_DILATION_RATIO * float(np.hypot(height, width))))
    x, y, w, h = (int(v) for v in rle.toBbox(mask))
    pixels = rle.decode(mask)
    # Only the box is eroded; a rim of zeros makes its edge, and the image's, an outline.
    crop = np.pad(pixels[y : y + h, x : x + w], 1)
    eroded = cv2.erode(crop, np.ones((3, 3), np.uint8), iterations=distance)
    pixels[y : y + h, x : x + w] -= eroded[1:-1, 1:-1]
    encoded: dict[str, Any] = rle.encode(np.asfortranarray(pixels))
    return encoded


class BoundaryEval(COCOeval):
    """COCOeval of masks whose overlap is the lower of mask IoU and boundary IoU, as the paper's Boundary AP (section 5.2)."""

    def __init__(self, truth: COCO, predictions: COCO) -> None:
        """Takes what ``COCOeval(truth, predictions, "segm")`` takes."""
        super().__init__(truth, predictions, "segm")

    def computeIoU(self, imgId: int, catId: int) -> Any:  # noqa: N802, N803 (the base class's names)
        """Returns (detections, objects) overlaps of an image and category, detections by falling score."""
        overlaps = super().computeIoU(imgId, catId)
        if len(overlaps) == 0:
            return overlaps
        objects = self._gts[imgId, catId]
        detections = sorted(self._dts[imgId, catId], key=lambda d: -d["score"])[: self.params.maxDets[-1]]
        bands = [[boundary_rle(item["segmentation"]) for item in items] for items in (detections, objects)]
        crowd = [int(item["iscrowd"]) for item in objects]
        return np.minimum(overlaps, rle.iou(*bands, crowd))


def boundary_ap(truth: COCO, predictions: list[dict[str, Any]], *, max_detections: int = 100) -> dict[str, float]:
    """Evaluates masks.

    Args:
        truth: the ground truth.
        predictions: COCO results with ``segmentation``.
        max_detections: how many of an image count.

    Returns:
        ``AP``, ``AP50`` and ``AP75`` in percent; 0 where there are no predictions, nan where there is no object.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        # pycocotools writes into what it is given.
        loaded = truth.loadRes([dict(prediction) for prediction in predictions]) if predictions else COCO()
        evaluator = BoundaryEval(truth, loaded)
        evaluator.params.maxDets = [1, 10, max_detections]
        evaluator.evaluate()
        evaluator.accumulate()
    precision = evaluator.eval["precision"][..., 0, -1]  # (IoU thresholds, recalls, categories), all areas

    def mean(values: np.ndarray) -> float:
        valid = values[values > -1]
        return float(valid.mean() * 100) if valid.size else float("nan")

    return {"AP": mean(precision), "AP50": mean(precision[0]), "AP75": mean(precision[5])}


def main() -> None:
    """Prints the Boundary AP of a results file."""
    import json
    from pathlib import Path

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("truth", help="COCO annotation file")
    parser.add_argument("results", help="COCO results file, such as inference/coco_instances_results.json of a run")
    parser.add_argument("--max-detections", type=int, default=100, help="how many of an image count")
    args = parser.parse_args()
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(args.truth)
    results = [by_mask_score(result) for result in json.loads(Path(args.results).read_text())]
    for name, value in boundary_ap(truth, results, max_detections=args.max_detections).items():
        print(f"boundary {name} {value:.2f}")


if __name__ == "__main__":
    main()
