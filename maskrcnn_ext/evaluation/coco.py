"""COCO's AP that is never nan for want of predictions, counts all of them, and ranks masks by their own scores."""

from __future__ import annotations

import functools
from collections import Counter
from typing import Any

from detectron2 import evaluation
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

# COCO's limit of detections an image.
_LIMIT = 100
# What every object of the ground truth must have for a task.
_NEEDS = {
    "bbox": {"bbox", "area", "iscrowd"},
    "segm": {"bbox", "area", "iscrowd", "segmentation"},
    "keypoints": {"bbox", "area", "iscrowd", "keypoints", "num_keypoints"},
}


class COCOEvaluator(evaluation.COCOEvaluator):
    """Detectron2's COCOEvaluator, with its arguments and numbers, except where those mislead.

    * Without any prediction, the metrics are 0 where the ground truth has objects to find, not nan, and are those of all tasks that
      the ground truth allows unless ``tasks`` names them: ``segm/AP`` of a data set with masks is always there.
    * Without ``max_dets_per_image``, all boxes and masks of an image count, not 100 of them; the log has the limit. Give it to compare
      with others' numbers of dense images. Of keypoints 20 an image count, as COCO defines it.
    * Masks are ranked by ``pred_mask_scores`` where the model gives them, and all else by ``scores``. That is how Mask Scoring R-CNN is
      measured (arXiv:1903.00241, section 4). The results file has the mask scores as ``mask_score``.
    """

    # The base class's signature, which differs between versions, is what checks of a config see.
    @functools.wraps(evaluation.COCOEvaluator.__init__)  # type: ignore[misc]
    def __init__(self, *args: Any, max_dets_per_image: int | None = None, **kwargs: Any) -> None:
        super().__init__(*args, max_dets_per_image=max_dets_per_image, **kwargs)
        self._counts_all = max_dets_per_image is None
        self._img_ids: list[int] | None = None

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Takes a batch's inputs and what the model has returned."""
        for image, output in zip(inputs, outputs, strict=True):
            super().process([image], [output])
            if "instances" in output and output["instances"].has("pred_mask_scores"):
                scores = output["instances"].pred_mask_scores.tolist()
                for result, score in zip(self._predictions[-1]["instances"], scores, strict=True):
                    result["mask_score"] = score

    def _eval_predictions(self, predictions: list[dict[str, Any]], img_ids: list[int] | None = None) -> None:
        self._img_ids = img_ids
        results = [result for prediction in predictions for result in prediction["instances"]]
        if self._counts_all:
            largest = max(Counter(result["image_id"] for result in results).values(), default=0)
            self._max_dets_per_image = [1, 10, max(_LIMIT, largest)]
        self._logger.info(f"Up to {max(self._max_dets_per_image)} boxes and masks of an image count (COCO: {_LIMIT}).")
        of_masks = {}
        if any("mask_score" in result for result in results):
            # Copies, as the base class writes into what it is given.
            rescored = [{**p, "instances": [by_mask_score(result) for result in p["instances"]]} for p in predictions]
            super()._eval_predictions(rescored, img_ids=img_ids)
            of_masks = {task: metrics for task, metrics in self._results.items() if task == "segm"}
        super()._eval_predictions(predictions, img_ids=img_ids)
        self._results.update(of_masks)

    def _tasks_from_predictions(self, predictions: list[dict[str, Any]]) -> list[str]:
        if predictions:
            tasks: list[str] = super()._tasks_from_predictions(predictions)
            return tasks
        return sorted({"bbox", *self._tasks_of_truth()})

    def _tasks_of_truth(self) -> list[str]:
        objects = self._coco_api.anns.values()

        def allows(needs: set[str]) -> bool:
            return all(found.get(key) not in (None, []) for found in objects for key in needs)

        return [task for task, needs in _NEEDS.items() if objects and allows(needs)]

    def _derive_coco_results(
        self, coco_eval: COCOeval | None, iou_type: str, class_names: list[str] | None = None
    ) -> dict[str, float]:
        if coco_eval is None and iou_type in self._tasks_of_truth():
            self._logger.warning(f"No predictions from the model: {iou_type} is 0 where there are objects.")
            coco_eval = COCOeval(self._coco_api, COCO(), iou_type)
            if self._img_ids is not None:
                coco_eval.params.imgIds = self._img_ids
            coco_eval.evaluate()
            coco_eval.accumulate()
            coco_eval.summarize()
        metrics: dict[str, float] = super()._derive_coco_results(coco_eval, iou_type, class_names=class_names)
        return metrics


def by_mask_score(result: dict[str, Any]) -> dict[str, Any]:
    """Returns a COCO result whose ``score`` is its mask's, where it has one."""
    return {**result, "score": result.get("mask_score", result["score"])}
