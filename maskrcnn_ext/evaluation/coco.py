"""A COCO evaluator whose AP is 0 instead of nan without predictions, that counts all detections, and ranks masks by mask scores."""

from __future__ import annotations

import copy
import functools
import inspect
import itertools
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from detectron2 import evaluation
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Instances
from detectron2.utils import comm
from pycocotools.coco import COCO

from maskrcnn_ext.common.files import JsonListWriter, write_atomic
from maskrcnn_ext.common.signatures import with_keyword
from maskrcnn_ext.common.silence import log_silenced
from maskrcnn_ext.common.text import or_list, plural
from maskrcnn_ext.data.registry.catalog import class_names
from maskrcnn_ext.data.registry.dicts import from_dicts
from maskrcnn_ext.data.registry.keypoints import check_sigmas
from maskrcnn_ext.data.registry.resolve import ensure_registered
from maskrcnn_ext.data.writers.coco import to_coco_dict
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.evaluation.backend import backend_name, run_coco_eval
from maskrcnn_ext.evaluation.results import Results
from maskrcnn_ext.evaluation.spooled_results import SpooledResults
from maskrcnn_ext.evaluation.truth import Truth, complete, load_truth
from maskrcnn_ext.ops.rle import with_text_counts
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
    * Results wait in a temporary file in ``output_dir``, and hotcoco measures them image by image, so that memory does not hold the masks
      of all images. Other programs need them all at once. ``instances_predictions.pth`` is not written: the results file has its content.
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
                load_truth(Path(file))  # raises an error that names the fault
                raise
        self._classes = None if classes is None else class_names(classes)
        self._counts_all = max_dets_per_image is None
        self._truth = Truth(name, [], [], [])
        if self._do_evaluation:
            self._truth = complete(self._coco_api.dataset, f"data set {name}")
            self._coco_api: COCO = self._truth.as_coco()

    def reset(self) -> None:
        """Forgets all predictions."""
        self._predictions: list[dict[str, Any]] = []
        self._found = SpooledResults(Path(self._output_dir) if self._output_dir else None)

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Stores the results of a batch in a temporary file. The model's outputs are not changed.

        Raises:
            InputError: a prediction is of a class that the data set does not have.
        """
        for image, output in zip(inputs, outputs, strict=True):
            if "proposals" in output:
                super().process([image], [{"proposals": output["proposals"]}])
            if "instances" in output:
                instances = output["instances"].to("cpu")
                self._found.add(image["image_id"], self._with_dataset_ids(_to_results(instances, image["image_id"])))

    def evaluate(self, img_ids: list[int] | None = None) -> dict[str, Any]:
        """Returns the metrics of each task on the main process, {} on the others.

        Args:
            img_ids: ids of the images to evaluate; None for all.

        Raises:
            InputError: predictions are of images that the data set lacks, or do not allow a task.
        """
        if self._distributed:
            comm.synchronize()
            self._found.gather()
            self._predictions = list(itertools.chain(*comm.gather(self._predictions)))
            if not comm.is_main_process():
                return {}
        self._results: dict[str, Any] = {}
        if not self._found and not self._predictions:
            self._logger.warning("The evaluator has seen no image.")
        if self._predictions:
            self._eval_box_proposals(self._predictions)
        if self._found:
            self._evaluate_instances(img_ids)
        return copy.deepcopy(self._results)

    def _evaluate_instances(self, img_ids: list[int] | None) -> None:
        if self._output_dir:
            with JsonListWriter(Path(self._output_dir, "coco_instances_results.json")) as file:
                for results in self._found.values():
                    file.extend(results)
        if not self._do_evaluation:
            self._logger.info("The dataset has no annotations to evaluate with.")
            return
        unknown = next(
            (key for key, count in self._found.counts.items() if count and key not in self._coco_api.imgs), None
        )
        if unknown is not None:
            raise InputError(f"predictions are of image {unknown!r}, which {self._truth.name} does not have")
        limit = max(self._max_dets_per_image)
        if self._counts_all:
            limit = max([_LIMIT, *self._found.counts.values()])
        self._logger.info(f"Up to {limit} boxes and masks of an image count (COCO: {_LIMIT}).")
        self._logger.info(f"Evaluated with {backend_name(fast=self._use_fast_impl)}.")
        if not self._found.having:
            self._logger.warning(
                "The model has made no predictions: metrics of classes with objects are 0. If this is not the start of a training, check "
                "the weights, and lower model.roi_heads.box_predictor.test_score_thresh."
            )
        self._results.update(self._evaluate_tasks(self._found, limit, img_ids))

    def _evaluate_tasks(
        self, results: SpooledResults, limit: int, img_ids: list[int] | None = None
    ) -> dict[str, dict[str, float]]:
        """Returns the metrics of each task."""
        sigmas = self._kpt_oks_sigmas or self._metadata.get("keypoint_oks_sigmas", ())
        metrics = {}
        for task in sorted(self._tasks or self._possible_tasks(results)):
            evaluator = None
            if self._can_evaluate(task, results, sigmas):
                evaluator = run_coco_eval(
                    self._coco_api,
                    results,
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
            metrics = self._evaluate_tasks(SpooledResults(), _LIMIT)
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
                f"a prediction is of class {wrong}, but {self._truth.name} has {plural(count, 'class', 'classes')}: set "
                f"model.roi_heads.num_classes={count}"
            )
        if not count:  # a data set without categories to evaluate with
            return [dict(result) for result in results]
        return [
            {**result, "category_id": ids[result["category_id"]]} for result in results if result["category_id"] in ids
        ]

    def _possible_tasks(self, results: SpooledResults) -> list[str]:
        allowed = {task for task in _TASKS if self._truth.annotations and self._truth.allows(task)}
        if not results.having:
            return sorted({"bbox", *allowed})
        tasks = {"bbox", *(task for task in _TASKS if results.having[_key(task)])}
        for task in sorted(tasks - allowed if self._truth.annotations else ()):
            self._logger.warning(f"{task} is not evaluated: {self._truth.why_not(task)}")
            tasks.remove(task)
        return sorted(tasks)

    def _can_evaluate(self, task: str, results: SpooledResults, sigmas: Sequence[float]) -> bool:
        """Returns whether a task can be measured.

        Raises:
            InputError: the task is unknown, or there are results, but they or the dataset's objects lack a field that the task needs.
        """
        if task not in _TASKS:
            raise InputError(f"COCOEvaluator: unknown task {task!r}: choose {or_list(_TASKS)}")
        objects, allowed = self._truth.annotations, self._truth.allows(task)
        count = results.counts.total()
        if not count or not objects:
            return bool(count) or (bool(objects) and allowed)
        key = _key(task)
        if not allowed or results.having[key] < count:
            who = "the model's predictions" if allowed else "some objects of the dataset"
            raise InputError(
                f"COCOEvaluator: {task} is one of its tasks, but {who} have no `{key}`: remove it from `tasks`"
            )
        if task == "keypoints":
            first = next(found for of_image in results.values() for found in of_image)
            annotated, predicted = (len(of["keypoints"]) // 3 for of in (objects[0], first))
            check_sigmas(sigmas, predicted=predicted, annotated=annotated)
        return True


def _key(task: str) -> str:
    return "segmentation" if task == "segm" else task


def _to_results(found: Instances, image_id: Any) -> list[dict[str, Any]]:
    """Returns the instances as COCO results. Masks that are RLEs are not decoded."""
    prepared = Instances(found.image_size, **found.get_fields())
    if found.has("pred_keypoints"):
        prepared.pred_keypoints = found.pred_keypoints.clone()  # Detectron2 shifts them in place
    rles: list[dict[str, Any]] = []
    if found.has("pred_masks") and isinstance(found.pred_masks, RLEMasks):
        rles = found.pred_masks.rles
        prepared.remove("pred_masks")
    results: list[dict[str, Any]] = instances_to_coco_json(prepared, image_id)
    for result, rle in zip(results, rles, strict=False):
        result["segmentation"] = with_text_counts(rle)
    if found.has("pred_mask_scores"):
        for result, score in zip(results, found.pred_mask_scores.tolist(), strict=True):
            result["mask_score"] = score
    return results


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
