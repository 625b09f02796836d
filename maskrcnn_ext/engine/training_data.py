"""Finds faults of data and evaluation that would stop or invalidate a training later, before its first iteration."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from detectron2 import evaluation
from detectron2.config import instantiate
from omegaconf import DictConfig, OmegaConf

from maskrcnn_ext.common.distributed import decide_on_main
from maskrcnn_ext.common.text import did_you_mean, first_line
from maskrcnn_ext.compat import evaluated_annotations
from maskrcnn_ext.config.data_sets import (
    Split,
    class_faults,
    fill_counts,
    image_fault,
    map_by_name,
    mask_fault,
    order_faults,
    read_split,
)
from maskrcnn_ext.data.registry.classes import Classes
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.evaluation.coco import COCOEvaluator

logger = logging.getLogger(__name__)


class TrainingData(NamedTuple):
    """The data of a training.

    Attributes:
        records: the training records; None if the config's loader makes its own.
        classes: the classes of the model's outputs; None if they are unknown.
    """

    records: list[dict[str, Any]] | None
    classes: Classes | None


def read_training_data(cfg: DictConfig, unset_counts: Sequence[str] = ()) -> TrainingData:
    """Reads training and test set, sets counts of the model that the user left unset, checks images and classes. Call this on every rank.

    Args:
        cfg: a LazyConfig with all keys of this package; its counts and, with ``train.match_classes=name``, its data sets are changed.
        unset_counts: keys of counts that are set to those of the data.

    Raises:
        InputError: data is missing or broken, or the classes of the training set, the test set and the model differ.
    """
    if cfg.train.match_classes == "name":
        map_by_name(cfg)
    train = read_split(cfg, "train")
    test = read_split(cfg, "test") if "evaluator" in cfg.dataloader else None
    classes = train.classes if train else None
    if classes is not None:
        for line in fill_counts(cfg, classes, unset_counts):
            logger.info("%s", line)
    _check_images(cfg, [split for split in (train, test) if split is not None])
    if train is not None and (fault := mask_fault(cfg, train)):
        raise InputError(fault)
    _check_classes(cfg, train, test)
    return TrainingData(train.records if train else None, classes)


def check_test_data(cfg: DictConfig, classes: Classes | None, weights: str) -> None:
    """Reads the test set for an evaluation without training, and checks its images, and its classes against those of the checkpoint.

    Args:
        cfg: a LazyConfig with all keys of this package; with ``train.match_classes=name``, its evaluator is changed.
        classes: of the checkpoint; None if it stores none.
        weights: the checkpoint.

    Raises:
        InputError: data is missing or broken, or the classes differ.
    """
    if cfg.train.match_classes == "name":
        map_by_name(cfg, None if classes is None else list(classes.names))
    test = read_split(cfg, "test") if "evaluator" in cfg.dataloader else None
    if test is None:
        return
    _check_images(cfg, [test])
    if classes is None:
        _check_classes(cfg, None, test)
    else:
        _check_classes(cfg, Split("train", [weights], [], classes), test)


def check_resumed_classes(cfg: DictConfig, stored: Classes | None, classes: Classes | None) -> None:
    """Raises an InputError if a run is resumed with other classes than those that its checkpoint stores."""
    if stored is None or classes is None or cfg.train.match_classes == "index":
        return
    for fault in order_faults(
        classes.names, "the training set", stored.names, f"the checkpoint in {cfg.train.output_dir}"
    ):
        raise InputError(
            f"{fault}; dataloader.train.dataset.classes=[{','.join(stored.names)}] keeps the checkpoint's order"
        )


def _check_images(cfg: DictConfig, splits: list[Split]) -> None:
    for split in splits:
        found = decide_on_main(partial(image_fault, cfg, split))
        if found is not None:
            text, is_fatal = found
            if is_fatal:
                raise InputError(text)
            logger.warning("%s", text)


def _check_classes(cfg: DictConfig, train: Split | None, test: Split | None) -> None:
    for fault in class_faults(cfg, train, test):
        raise InputError(fault)


def check_evaluator(cfg: DictConfig) -> None:
    """Builds ``dataloader.evaluator`` and runs it on no detections, so that a fault ends the run now and not at its first evaluation.

    Call this on every rank, after the test set was read.

    Raises:
        InputError: the evaluator cannot be built, cannot evaluate this data set, or does not have the metric that a setting names.
    """
    if "evaluator" not in cfg.dataloader:
        return
    key = "dataloader.evaluator"
    try:
        evaluator = instantiate(cfg.dataloader.evaluator)
    except InputError:
        raise
    except Exception as error:  # it may be any class
        raise InputError(
            f"{key} cannot be built ({type(error).__name__}: {first_line(error)}): {key}._target_=maskrcnn_ext.COCOEvaluator evaluates any "
            "data set"
        ) from error
    if isinstance(evaluator, COCOEvaluator):
        _check_metrics(cfg, decide_on_main(evaluator.metric_names))
    elif isinstance(evaluator, evaluation.COCOEvaluator):
        _check_stock_evaluator(cfg, evaluator)


def _check_metrics(cfg: DictConfig, metrics: set[str]) -> None:
    """Raises an InputError if a setting names a metric of COCO's tasks that the evaluation does not have."""
    for key in ("best", "early_stopping"):
        metric = str(cfg.train[key].metric or "").removeprefix("ema/")
        if metric.partition("/")[0] in ("bbox", "segm", "keypoints") and metric not in metrics:
            advice = did_you_mean(metric, metrics) or f"it has {', '.join(sorted(metrics)) or 'none'}"
            raise InputError(f"train.{key}.metric={cfg.train[key].metric}: the evaluation has no such metric; {advice}")


def _check_stock_evaluator(cfg: DictConfig, evaluator: evaluation.COCOEvaluator) -> None:
    """Raises an InputError if an object lacks what Detectron2's evaluator reads without looking."""
    needed = ["id", "iscrowd", "area"]
    if OmegaConf.select(cfg, "model.roi_heads.mask_head") is not None:
        needed.append("segmentation")
    for annotation in evaluated_annotations(evaluator):
        missing = next((name for name in needed if annotation.get(name) in (None, [])), None)
        if missing is not None:
            raise InputError(
                f"dataloader.evaluator: Detectron2's COCOEvaluator needs `{missing}`, which annotation {annotation.get('id')!r} of the "
                "test set lacks: set dataloader.evaluator._target_=maskrcnn_ext.COCOEvaluator"
            )
