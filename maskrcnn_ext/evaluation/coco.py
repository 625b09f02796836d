"""COCO's AP for models whose masks have scores of their own."""

from __future__ import annotations

from typing import Any

from detectron2 import evaluation


class COCOEvaluator(evaluation.COCOEvaluator):
    """Detectron2's COCOEvaluator, which ranks masks by ``pred_mask_scores`` where the model gives them, and all else by ``scores``.

    That is how Mask Scoring R-CNN is measured (arXiv:1903.00241, section 4). Of other models the results are Detectron2's. The results
    file has the mask scores as ``mask_score``.
    """

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Takes a batch's inputs and what the model has returned."""
        super().process(inputs, outputs)
        for prediction, output in zip(self._predictions[-len(outputs) :], outputs, strict=True):
            if "instances" in output and output["instances"].has("pred_mask_scores"):
                scores = output["instances"].pred_mask_scores.tolist()
                for result, score in zip(prediction["instances"], scores, strict=True):
                    result["mask_score"] = score

    def _eval_predictions(self, predictions: list[dict[str, Any]], img_ids: Any = None) -> None:
        rescored = [{**p, "instances": [by_mask_score(result) for result in p["instances"]]} for p in predictions]
        has_mask_scores = any("mask_score" in result for p in predictions for result in p["instances"])
        if has_mask_scores:
            super()._eval_predictions(rescored, img_ids=img_ids)
            of_masks = self._results["segm"]
        super()._eval_predictions(predictions, img_ids=img_ids)
        if has_mask_scores:
            self._results["segm"] = of_masks


def by_mask_score(result: dict[str, Any]) -> dict[str, Any]:
    """Returns a COCO result whose ``score`` is its mask's, where it has one."""
    return {**result, "score": result.get("mask_score", result["score"])}
