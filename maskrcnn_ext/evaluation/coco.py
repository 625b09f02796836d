"""COCO's AP that is never nan for want of predictions, counts all of them, and ranks masks by their own scores."""

from __future__ import annotations

import functools
import inspect
import json
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from detectron2 import evaluation
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Instances
from pycocotools.coco import COCO

from maskrcnn_ext.data.registry.dicts import from_dicts
from maskrcnn_ext.data.registry.keypoints import check_sigmas
from maskrcnn_ext.data.registry.resolve import ensure_registered
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.evaluation.backend import backend_name, run_coco_eval
from maskrcnn_ext.evaluation.results import Results, by_mask_score
from maskrcnn_ext.evaluation.truth import Truth, complete, to_coco_dict
from maskrcnn_ext.ops.rle_masks import RLEMasks

# COCO's limit of detections an image.
_LIMIT = 100
_TASKS = ("bbox", "keypoints", "segm")


class COCOEvaluator(evaluation.COCOEvaluator):
    """Detectron2's COCOEvaluator, with its arguments and numbers, except where those mislead.

    * Without any prediction, the metrics are 0 where the ground truth has objects to find, not nan, and are those of all tasks that
      the ground truth allows unless ``tasks`` names them: ``segm/AP`` of a data set with masks is always there.
    * Without ``max_dets_per_image``, all boxes and masks of an image count, not 100 of them; the log has the limit. Give it to compare
      with others' numbers of dense images. Of keypoints 20 an image count, as COCO defines it.
    * Masks are ranked by ``pred_mask_scores`` where the model gives them, and all else by ``scores``. That is how Mask Scoring R-CNN is
      measured (arXiv:1903.00241, section 4). The results file has the mask scores as ``mask_score``.
    * Masks may come as :class:`maskrcnn_ext.ops.rle_masks.RLEMasks`; they are not decoded.
    * Ground truth without ``area`` or ``iscrowd`` is completed, annotation ids may begin at 0, and what has no COCO file is converted
      anew, whatever ``output_dir`` holds of an earlier run.
    * ``use_fast_impl`` stands for faster-coco-eval where it is installed (``pip install "maskrcnn_ext[eval]"``), which gives
      pycocotools' numbers sooner. With False, it is pycocotools.
    """

    # The base class's signature, which differs between versions, is what checks of a config see.
    @functools.wraps(evaluation.COCOEvaluator.__init__)  # type: ignore[misc]
    def __init__(self, *args: Any, max_dets_per_image: int | None = None, **kwargs: Any) -> None:
        given = inspect.signature(evaluation.COCOEvaluator.__init__).bind(self, *args, **kwargs).arguments
        with _converted(given["dataset_name"], given.get("output_dir")):
            super().__init__(*args, max_dets_per_image=max_dets_per_image, **kwargs)
        self._counts_all = max_dets_per_image is None
        self._truth = Truth(given["dataset_name"], [], [], [])
        if self._do_evaluation:
            self._truth = complete(self._coco_api.dataset, f"data set {given['dataset_name']}")
            self._coco_api: COCO = self._truth.as_coco()

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Takes a batch's inputs and what the model has returned, which stays as it is."""
        for image, output in zip(inputs, outputs, strict=True):
            if "instances" not in output:
                super().process([image], [output])
                continue
            found, rles = _prepared(output["instances"].to("cpu"))
            super().process([image], [{**output, "instances": found}])
            results = self._predictions[-1]["instances"]
            for result, rle in zip(results, rles, strict=False):
                result["segmentation"] = {**rle, "counts": rle["counts"].decode("ascii")}
            if found.has("pred_mask_scores"):
                for result, score in zip(results, found.pred_mask_scores.tolist(), strict=True):
                    result["mask_score"] = score

    def _eval_predictions(self, predictions: list[dict[str, Any]], img_ids: list[int] | None = None) -> None:
        # Copies, so that a second evaluation begins with the same.
        results = self._with_own_ids([result for prediction in predictions for result in prediction["instances"]])
        if self._output_dir:
            Path(self._output_dir, "coco_instances_results.json").write_text(json.dumps(results), encoding="utf-8")
        if not self._do_evaluation:
            self._logger.info("The data set has no annotations to evaluate with.")
            return
        limit = max(self._max_dets_per_image)
        if self._counts_all:
            limit = max([_LIMIT, *Counter(result["image_id"] for result in results).values()])
        self._logger.info(f"Up to {limit} boxes and masks of an image count (COCO: {_LIMIT}).")
        self._logger.info(f"Evaluated by {backend_name(self._coco_api, fast=self._use_fast_impl)}.")
        if not results:
            self._logger.warning("No predictions from the model: the metrics are 0 where there are objects.")
        sigmas = self._kpt_oks_sigmas or self._metadata.get("keypoint_oks_sigmas", ())
        for task in sorted(self._tasks or self._tasks_from_predictions(results)):
            evaluator = None
            if self._check(task, results, sigmas):
                evaluator = run_coco_eval(
                    self._coco_api,
                    [by_mask_score(result) for result in results] if task == "segm" else results,
                    task,
                    fast=self._use_fast_impl,
                    max_detections=limit,
                    sigmas=sigmas,
                    img_ids=img_ids,
                )
            self._results[task] = self._derive_coco_results(evaluator, task, self._metadata.get("thing_classes"))

    def _with_own_ids(self, results: Results) -> Results:
        """Returns copies with the data set's own category ids in the place of the classes' indices."""
        of_classes = self._metadata.get("thing_dataset_id_to_contiguous_id") or {
            own["id"]: own["id"] for own in self._truth.categories
        }
        own_ids = {index: own for own, index in of_classes.items()}
        wrong = next((result["category_id"] for result in results if result["category_id"] not in own_ids), None)
        if wrong is not None and own_ids:
            raise InputError(
                f"a prediction is of class {wrong}, but {self._truth.name} has {len(own_ids)} classes: set "
                f"model.roi_heads.num_classes={len(own_ids)}"
            )
        return [
            {**result, "category_id": own_ids.get(result["category_id"], result["category_id"])} for result in results
        ]

    def _tasks_from_predictions(self, predictions: list[dict[str, Any]]) -> list[str]:
        allowed = {task for task in _TASKS if self._truth.annotations and self._truth.allows(task)}
        if not predictions:
            return sorted({"bbox", *allowed})
        tasks = set(super()._tasks_from_predictions(predictions))
        for task in sorted(tasks - allowed if self._truth.annotations else ()):
            self._logger.warning(f"{task} is not evaluated: not all of the data set's objects have what it looks at.")
            tasks.remove(task)
        return sorted(tasks)

    def _check(self, task: str, results: Results, sigmas: Sequence[float]) -> bool:
        """Returns whether a task can be measured; what it lacks is a mistake only where something was found."""
        if task not in _TASKS:
            raise InputError(f"COCOEvaluator: no task {task!r}: choose from {', '.join(_TASKS)}")
        objects, allowed = self._truth.annotations, self._truth.allows(task)
        if not results or not objects:
            return bool(results) or (bool(objects) and allowed)
        key = "segmentation" if task == "segm" else task
        if not allowed or not all(result.get(key) for result in results):
            who = "the model's predictions" if allowed else "some of the data set's objects"
            raise InputError(
                f"COCOEvaluator: {task} is among its tasks, but {who} have no `{key}`: leave it out of `tasks`"
            )
        if task == "keypoints":
            annotated, predicted = (len(of[0]["keypoints"]) // 3 for of in (objects, results))
            check_sigmas(sigmas, predicted=predicted, annotated=annotated)
        return True


def _prepared(found: Instances) -> tuple[Instances, list[dict[str, Any]]]:
    """Returns an image's instances without masks that are RLEs already, and those; Detectron2 moves the keypoints in place."""
    prepared = Instances(found.image_size, **found.get_fields())
    rles: list[dict[str, Any]] = []
    if found.has("pred_keypoints"):
        prepared.pred_keypoints = found.pred_keypoints.clone()
    if found.has("pred_masks") and isinstance(found.pred_masks, RLEMasks):
        rles = found.pred_masks.rles
        prepared.remove("pred_masks")
    return prepared, rles


@contextmanager
def _converted(name: str, output_dir: str | None) -> Iterator[None]:
    """Gives Detectron2 a COCO file of a data set that has none, for the time of the block.

    It would make one itself, and take the file of an earlier run for it, whatever the data are now.
    """
    metadata = MetadataCatalog.get(name)
    if metadata.get("json_file") or output_dir is None:
        yield
        return
    ensure_registered(name)
    if metadata.get("json_file"):  # registered just now, with its file
        yield
        return
    content = to_coco_dict(from_dicts(name, DatasetCatalog.get(name)))
    Path(output_dir).mkdir(parents=True, exist_ok=True)
    file = Path(output_dir, f"{name.replace('/', '_')}_coco_format.json")
    # Every process of a run writes the same file.
    partial = file.with_name(f"{file.name}.{uuid.uuid4().hex}")
    partial.write_text(json.dumps(content), encoding="utf-8")
    partial.replace(file)
    metadata.json_file = str(file)
    try:
        yield
    finally:
        del metadata.json_file
