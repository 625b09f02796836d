"""A COCO evaluator whose AP is 0 instead of nan without predictions, that counts all detections, and ranks masks by mask scores."""

from __future__ import annotations

import functools
import inspect
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from detectron2 import evaluation
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Instances
from pycocotools.coco import COCO

from maskrcnn_ext.common.files import write_atomic
from maskrcnn_ext.common.signatures import with_keyword
from maskrcnn_ext.common.silence import log_silenced
from maskrcnn_ext.common.text import or_list
from maskrcnn_ext.data.registry.catalog import class_names
from maskrcnn_ext.data.registry.dicts import from_dicts
from maskrcnn_ext.data.registry.keypoints import check_sigmas
from maskrcnn_ext.data.registry.resolve import ensure_registered
from maskrcnn_ext.data.writers.coco import to_coco_dict
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.evaluation.backend import backend_name, run_coco_eval
from maskrcnn_ext.evaluation.results import Results, by_mask_score
from maskrcnn_ext.evaluation.truth import Truth, complete, load_truth
from maskrcnn_ext.ops.rle_masks import RLEMasks

# COCO's limit of detections per image.
_LIMIT = 100
_TASKS = ("bbox", "keypoints", "segm")


class COCOEvaluator(evaluation.COCOEvaluator):
    """Detectron2's COCOEvaluator with the same arguments and numbers, except where those are misleading.

    * Without any prediction, metrics are 0, not nan, if the ground truth has objects to find. They are reported for all tasks that the
      ground truth allows, unless ``tasks`` names them: ``segm/AP`` is always reported for a dataset with masks.
    * Without ``max_dets_per_image``, all boxes and masks of an image count, not only 100; the limit is logged. Set it to compare with
      published numbers on dense images. For keypoints, 20 detections per image count, as COCO defines it.
    * Masks are ranked by ``pred_mask_scores`` if the model returns them, everything else by ``scores``. This is how Mask Scoring R-CNN is
      measured (arXiv:1903.00241, section 4). The results file has the mask scores as ``mask_score``.
    * Masks may be :class:`maskrcnn_ext.ops.rle_masks.RLEMasks`; they are not decoded.
    * Missing ``area`` and ``iscrowd`` of the ground truth are filled in, and annotation ids may start at 0. A dataset without a COCO file
      is converted every time; files of an earlier run in ``output_dir`` are not reused.
    * ``classes``, the names of the model's outputs or a data set that has them, maps predictions to the categories of the data set by
      name; predictions of other classes do not count, since the data set has no objects of theirs. None for the data set's own order.
    * ``use_fast_impl=True`` uses hotcoco or faster-coco-eval if installed (``pip install "maskrcnn_ext[eval]"``), which return
      pycocotools' numbers in less time. ``use_fast_impl=False`` uses pycocotools.

    Example:
        One override of a config::

            dataloader.evaluator._target_=maskrcnn_ext.COCOEvaluator
    """

    @functools.wraps(evaluation.COCOEvaluator.__init__)  # type: ignore[misc]
    def __init__(
        self,
        *args: Any,
        max_dets_per_image: int | None = None,
        classes: str | Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        arguments = inspect.signature(evaluation.COCOEvaluator.__init__).bind(self, *args, **kwargs).arguments
        name = arguments["dataset_name"]
        with _temporary_coco_file(name, arguments.get("output_dir")) as file:
            try:
                super().__init__(*args, max_dets_per_image=max_dets_per_image, **kwargs)
            except (AttributeError, LookupError, OSError, TypeError, ValueError):
                load_truth(Path(file))  # raises an error that says what is wrong
                raise
        self._classes = None if classes is None else class_names(classes)
        self._counts_all = max_dets_per_image is None
        self._truth = Truth(name, [], [], [])
        if self._do_evaluation:
            self._truth = complete(self._coco_api.dataset, f"data set {name}")
            self._coco_api: COCO = self._truth.as_coco()

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Collects the results of a batch. The model's outputs are not changed."""
        for image, output in zip(inputs, outputs, strict=True):
            if "instances" not in output:
                super().process([image], [output])
                continue
            instances, rles = _split_rles(output["instances"].to("cpu"))
            super().process([image], [{**output, "instances": instances}])
            results = self._predictions[-1]["instances"]
            for result, rle in zip(results, rles, strict=False):
                result["segmentation"] = {**rle, "counts": rle["counts"].decode("ascii")}
            if instances.has("pred_mask_scores"):
                for result, score in zip(results, instances.pred_mask_scores.tolist(), strict=True):
                    result["mask_score"] = score

    def _eval_predictions(self, predictions: list[dict[str, Any]], img_ids: list[int] | None = None) -> None:
        # Copies, so that a second evaluation starts from the same predictions.
        results = self._with_dataset_ids([result for prediction in predictions for result in prediction["instances"]])
        if self._output_dir:
            write_atomic(Path(self._output_dir, "coco_instances_results.json"), json.dumps(results))
        if not self._do_evaluation:
            self._logger.info("The dataset has no annotations to evaluate with.")
            return
        limit = max(self._max_dets_per_image)
        if self._counts_all:
            limit = max([_LIMIT, *Counter(result["image_id"] for result in results).values()])
        self._logger.info(f"Up to {limit} boxes and masks of an image count (COCO: {_LIMIT}).")
        self._logger.info(f"Evaluated with {backend_name(self._coco_api, fast=self._use_fast_impl)}.")
        if not results:
            self._logger.warning(
                "The model has made no predictions: metrics of classes with objects are 0. If this is not the start of a training, check "
                "the weights, and lower model.roi_heads.box_predictor.test_score_thresh."
            )
        self._results.update(self._evaluate_tasks(results, limit, img_ids))

    def _evaluate_tasks(
        self, results: Results, limit: int, img_ids: list[int] | None = None
    ) -> dict[str, dict[str, float]]:
        """Returns the metrics of each task."""
        sigmas = self._kpt_oks_sigmas or self._metadata.get("keypoint_oks_sigmas", ())
        metrics = {}
        for task in sorted(self._tasks or self._tasks_from_predictions(results)):
            evaluator = None
            if self._can_evaluate(task, results, sigmas):
                evaluator = run_coco_eval(
                    self._coco_api,
                    [by_mask_score(result) for result in results] if task == "segm" else results,
                    task,
                    fast=self._use_fast_impl,
                    max_detections=limit,
                    sigmas=sigmas,
                    img_ids=img_ids,
                )
            metrics[task] = self._derive_coco_results(evaluator, task, list(self._names_by_id().values()) or None)
        return metrics

    def metric_names(self) -> set[str]:
        """Evaluates no detections, which shows faults of the ground truth before a training; returns the names of all metrics.

        Raises:
            InputError: the ground truth cannot be evaluated.

        Example::

            assert "segm/AP" in COCOEvaluator("nuclei_val").metric_names()
        """
        if not self._do_evaluation:
            return set()
        with log_silenced(self._logger):
            metrics = self._evaluate_tasks([], _LIMIT)
        return {f"{task}/{name}" for task, found in metrics.items() for name in found}

    def _names_by_id(self) -> dict[Any, str]:
        """Returns the class names by category id, in the order of the ids. A registration may name classes otherwise than the file."""
        names = self._metadata.get("thing_classes") or []
        indices = self._indices_by_id()
        return {
            category["id"]: names[index]
            if (index := indices.get(category["id"], len(names))) < len(names)
            else category["name"]
            for category in self._truth.categories
        }

    def _indices_by_id(self) -> dict[Any, int]:
        """Returns the index of the class by category id, also before the data set has been read."""
        ids = (category["id"] for category in self._truth.categories)
        return self._metadata.get("thing_dataset_id_to_contiguous_id") or {own: index for index, own in enumerate(ids)}

    def _with_dataset_ids(self, results: Results) -> Results:
        """Returns copies of the results whose `category_id` is that of the dataset, not the index of the class."""
        ids = {index: category_id for category_id, index in self._indices_by_id().items()}
        count = len(ids)
        if self._classes is not None:
            id_of_name = {name: category_id for category_id, name in self._names_by_id().items()}
            ids = {index: id_of_name[name] for index, name in enumerate(self._classes) if name in id_of_name}
            count = len(self._classes)
        wrong = next((result["category_id"] for result in results if not 0 <= result["category_id"] < count), None)
        if wrong is not None and count:
            raise InputError(
                f"a prediction is of class {wrong}, but {self._truth.name} has {count} classes: set model.roi_heads.num_classes={count}"
            )
        if not count:  # a data set without categories to evaluate with
            return [dict(result) for result in results]
        return [
            {**result, "category_id": ids[result["category_id"]]} for result in results if result["category_id"] in ids
        ]

    def _tasks_from_predictions(self, predictions: Sequence[dict[str, Any]]) -> list[str]:
        allowed = {task for task in _TASKS if self._truth.annotations and self._truth.allows(task)}
        if not predictions:
            return sorted({"bbox", *allowed})
        tasks = set(super()._tasks_from_predictions(predictions))
        for task in sorted(tasks - allowed if self._truth.annotations else ()):
            self._logger.warning(f"{task} is not evaluated: {self._truth.why_not(task)}")
            tasks.remove(task)
        return sorted(tasks)

    def _can_evaluate(self, task: str, results: Results, sigmas: Sequence[float]) -> bool:
        """Returns whether a task can be measured.

        Raises:
            InputError: the task is unknown, or there are results, but they or the dataset's objects lack what the task needs.
        """
        if task not in _TASKS:
            raise InputError(f"COCOEvaluator: unknown task {task!r}: choose {or_list(_TASKS)}")
        objects, allowed = self._truth.annotations, self._truth.allows(task)
        if not results or not objects:
            return bool(results) or (bool(objects) and allowed)
        key = "segmentation" if task == "segm" else task
        if not allowed or not all(result.get(key) for result in results):
            who = "the model's predictions" if allowed else "some objects of the dataset"
            raise InputError(
                f"COCOEvaluator: {task} is one of its tasks, but {who} have no `{key}`: remove it from `tasks`"
            )
        if task == "keypoints":
            annotated, predicted = (len(of[0]["keypoints"]) // 3 for of in (objects, results))
            check_sigmas(sigmas, predicted=predicted, annotated=annotated)
        return True


def _split_rles(instances: Instances) -> tuple[Instances, list[dict[str, Any]]]:
    """Returns a copy of the instances without masks that are already RLEs, and these RLEs."""
    prepared = Instances(instances.image_size, **instances.get_fields())
    rles: list[dict[str, Any]] = []
    if instances.has("pred_keypoints"):
        prepared.pred_keypoints = instances.pred_keypoints.clone()  # Detectron2 shifts them in place
    if instances.has("pred_masks") and isinstance(instances.pred_masks, RLEMasks):
        rles = instances.pred_masks.rles
        prepared.remove("pred_masks")
    return prepared, rles


@contextmanager
def _temporary_coco_file(name: str, output_dir: str | None) -> Iterator[str]:
    """Yields the COCO file of a dataset. For a dataset without one, it is written, and registered for the time of the block.

    Detectron2 would write one itself, but would reuse the file of an earlier run even if the dataset has changed since.
    """
    metadata = MetadataCatalog.get(name)
    if not metadata.get("json_file"):
        ensure_registered(name)
    if metadata.get("json_file"):  # the registration may have set its file
        yield metadata.json_file
        return
    content = to_coco_dict(from_dicts(name, DatasetCatalog.get(name)), first_category_id=0)
    with nullcontext(output_dir) if output_dir else tempfile.TemporaryDirectory() as folder:
        file = Path(folder, f"{name.replace('/', '_')[-200:]}_coco_format.json")
        write_atomic(file, json.dumps(content))  # every process of a run writes the same file
        metadata.json_file = str(file)
        try:
            yield str(file)
        finally:
            del metadata.json_file


# Config checks read the signature of the base class, which differs between versions of Detectron2, with the argument that this class adds.
COCOEvaluator.__init__.__signature__ = with_keyword(evaluation.COCOEvaluator.__init__, "classes", None)
