"""Reads the data sets of a config before training, and checks for faults that would stop it later: files, classes and their order."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from detectron2.config import instantiate
from detectron2.data import DatasetMapper
from omegaconf import DictConfig, OmegaConf

from maskrcnn_ext.common.text import first_line, plural, short_list
from maskrcnn_ext.config.callables import accepted_arguments, find_target, iter_nodes, target_name, to_plain
from maskrcnn_ext.data.mapping.bad_images import TOLERATED
from maskrcnn_ext.data.mapping.mapper import SafeMapper
from maskrcnn_ext.data.registry.catalog import class_names
from maskrcnn_ext.data.registry.classes import Classes, first_difference
from maskrcnn_ext.data.registry.resolve import ensure_registered
from maskrcnn_ext.data.registry.source import not_found_message
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.modeling.mask_heads.base import MaskHead


class Split(NamedTuple):
    """The data of ``dataloader.train`` or ``dataloader.test``.

    Attributes:
        part: "train" or "test".
        names: names of its data sets.
        records: Detectron2's dicts.
        classes: the classes of the first data set, in the order that ``dataset.classes`` asks for; None if they are unknown.
    """

    part: str
    names: list[str]
    records: list[dict[str, Any]]
    classes: Classes | None


def data_set_names(node: Any) -> list[str]:
    """Returns the names of a config's ``dataset`` node; an empty list if it has none."""
    names = node.get("names") if OmegaConf.is_dict(node) else None
    return [names] if isinstance(names, str) else [str(name) for name in names or ()]


def read_split(cfg: DictConfig, part: str) -> Split | None:
    """Reads the data of ``dataloader.<part>``; returns None if it has no list of records under ``dataset``.

    Raises:
        InputError: the data is missing or broken.
    """
    key = f"dataloader.{part}.dataset"
    node = OmegaConf.select(cfg, key)
    if not OmegaConf.is_dict(node) or "_target_" not in node:
        return None
    names = data_set_names(node)
    try:
        for name in names:
            ensure_registered(name)
        records = instantiate(node)
    except FileNotFoundError as error:
        if error.filename is None:
            raise
        raise InputError(f"{key}: {not_found_message(', '.join(names), Path(error.filename), '')}") from error
    except (AssertionError, LookupError) as error:  # Detectron2's own reader asserts
        raise InputError(f"{key}: data set {', '.join(names)} cannot be read: {first_line(error)}") from error
    return Split(part, names, records, _split_classes(node, names)) if isinstance(records, list) else None


def known_split(cfg: DictConfig, part: str) -> Split | None:
    """Returns ``dataloader.<part>`` without reading its data: no records, and the classes only if they are registered."""
    node = OmegaConf.select(cfg, f"dataloader.{part}.dataset")
    names = data_set_names(node)
    return Split(part, names, [], _split_classes(node, names)) if names else None


def _split_classes(node: DictConfig, names: list[str]) -> Classes | None:
    """Returns the classes of a ``dataset`` node, in the order that it asks for; None if they are unknown."""
    classes = Classes.of_data_set(names[0]) if names else None
    if classes is not None and node.get("classes") is not None:
        order = class_names(to_plain(node.classes))
        id_of = dict(zip(classes.names, classes.category_ids, strict=True))
        has_all = set(order) <= set(id_of)
        ids = tuple(id_of[name] for name in order) if has_all else tuple(range(len(order)))
        classes = replace(classes, names=tuple(order), category_ids=ids)
    return classes


def map_by_name(cfg: DictConfig, order: Sequence[str] | None = None) -> None:
    """Makes the data sets and the evaluator of a config map classes by name.

    Args:
        cfg: a LazyConfig; changed in place.
        order: the names of the model's outputs; None for ``dataloader.train.dataset.classes``, or else the first training set.

    Raises:
        InputError: a part of the config cannot map classes.
    """
    names = data_set_names(OmegaConf.select(cfg, "dataloader.train.dataset"))
    classes = (
        list(order) if order else OmegaConf.select(cfg, "dataloader.train.dataset.classes") or next(iter(names), None)
    )
    if classes is None:
        raise InputError("train.match_classes=name: dataloader.train.dataset names no data set")
    for key, advice in (
        *([("dataloader.train.dataset", "maskrcnn_ext.get_dataset_dicts")] if len(names) > 1 else []),
        ("dataloader.test.dataset", "maskrcnn_ext.get_dataset_dicts"),
        ("dataloader.evaluator", "maskrcnn_ext.COCOEvaluator"),
    ):
        node = OmegaConf.select(cfg, key)
        if node is None:
            continue
        arguments = accepted_arguments(find_target(to_plain(node["_target_"]), key))
        if arguments is not None and "classes" not in arguments:
            raise InputError(
                f"train.match_classes=name: {target_name(to_plain(node['_target_']))} cannot map classes: set {key}._target_={advice}"
            )
        node["classes"] = classes


def missing_images(records: Sequence[dict[str, Any]]) -> list[str]:
    """Returns the files of the records that do not exist, each once. A folder is listed once, which is faster than looking for each file.

    Files with a scheme, such as ``s3://``, are not looked for.
    """
    by_folder: dict[str, dict[str, str]] = {}
    for record in records:
        file = record.get("file_name")
        if isinstance(file, str) and "://" not in file:
            folder, name = os.path.split(file)
            by_folder.setdefault(folder, {})[name] = file
    missing = []
    for folder, files in by_folder.items():
        try:
            present = set(os.listdir(folder or "."))  # noqa: PTH208, a Path object for each of a million files is slow
        except OSError:
            present = set()
        # A file system may ignore case, or allow to open what it does not list.
        missing += [file for name, file in files.items() if name not in present and not os.path.exists(file)]  # noqa: PTH110
    return missing


def image_fault(cfg: DictConfig, split: Split) -> tuple[str, bool] | None:
    """Returns a line about image files that are missing, and whether training or evaluation would fail; None if all exist."""
    missing = missing_images(split.records)
    if not missing:
        return None
    files = {record.get("file_name") for record in split.records}
    text = (
        f"dataloader.{split.part}: {len(missing)} of {plural(len(files), 'image file')} of {', '.join(split.names) or 'its data'} "
        f"{'does' if len(missing) == 1 else 'do'} not exist: {short_list(missing, limit=3)}: fix the image folder or the file names, or "
        "leave these images out (maskrcnn-ext check-data --fix)"
    )
    tolerated = _tolerated_share(cfg) if split.part == "train" else 0.0
    few = len(missing) < len(files) and len(missing) <= max(TOLERATED, tolerated * len(files))
    return text, not (tolerated and few)


def mask_fault(cfg: DictConfig, split: Split) -> str | None:
    """Returns a line about training objects without mask, on which the mask head would fail; None if mapper and head take all."""
    head = OmegaConf.select(cfg, "model.roi_heads.mask_head")
    if head is None:
        return None
    losses = str(head.get("mask_loss")).split("+")
    if "box" in losses and not any(node.get("keep_image") for _, node in _mappers(cfg)):
        return "mask_loss=box compares colours: set dataloader.train.mapper.keep_image=true"
    if "points" in losses and not any(a.get("point_coords") for record in split.records for a in record["annotations"]):
        return (
            f"dataloader.{split.part}: {', '.join(split.names) or 'its data'} has no `point_coords` and `point_labels`, which "
            "mask_loss=points needs; `maskrcnn-ext make-points` makes them of masks"
        )
    needs_masks = any(target is DatasetMapper and node.get("use_instance_mask") for target, node in _mappers(cfg))
    box_only = any(node.get("missing_masks") == "box-only" for _, node in _mappers(cfg))
    kind = find_target(head.get("_target_"), "model.roi_heads.mask_head") if box_only else None
    skips_objects = isinstance(kind, type) and issubclass(kind, MaskHead)
    if not needs_masks and (skips_objects or not box_only):
        return None
    objects = [
        (record, annotation)
        for record in split.records
        for annotation in record.get("annotations", ())
        if not annotation.get("iscrowd")
    ]
    without = [record for record, annotation in objects if not annotation.get("segmentation")]
    if not without:
        return None
    image = without[0].get("file_name", without[0].get("image_id"))
    advice = (
        "Detectron2's DatasetMapper needs one: set dataloader.train.mapper._target_=maskrcnn_ext.SafeMapper, which uses the box as the "
        "mask (missing_masks=drop leaves these objects out, box-only trains their boxes)"
        if needs_masks
        else "the mask head cannot skip these objects (missing_masks=box-only): set "
        "model.roi_heads.mask_head._target_=maskrcnn_ext.FCNMaskHead or another that `maskrcnn-ext parts` lists"
    )
    return (
        f"dataloader.{split.part}: {len(without)} of {plural(len(objects), 'object')} of {', '.join(split.names) or 'its data'} "
        f"{'has' if len(without) == 1 else 'have'} no segmentation, the first in {image}, and {advice}"
    )


def _tolerated_share(cfg: DictConfig) -> float:
    """Returns the share of bad images that the training mapper skips."""
    for target, node in _mappers(cfg):
        if issubclass(target, SafeMapper) and not node.get("strict"):
            return float(node.get("max_bad_share", 0.01))
    return 0.0


def _mappers(cfg: DictConfig) -> Iterator[tuple[type, Mapping[str, Any]]]:
    """Yields each class within the training mapper, with its arguments."""
    for key, node in iter_nodes(to_plain(OmegaConf.select(cfg, "dataloader.train.mapper")), "dataloader.train.mapper"):
        target = find_target(node["_target_"], key)
        if isinstance(target, type):
            yield target, node


def class_faults(cfg: DictConfig, train: Split | None, test: Split | None) -> Iterator[str]:
    """Yields one line for each difference between the classes of the training set, those of the test set and the counts of the model."""
    ours = train.classes if train else None
    if ours is not None and train is not None:
        yield from count_faults(cfg, ours, train.names[0])
    theirs = test.classes if test else None
    if theirs is None or test is None:
        return
    if ours is None or train is None:
        yield from count_faults(cfg, theirs, test.names[0])
        return
    by_name = OmegaConf.select(cfg, "dataloader.evaluator.classes")
    names = theirs.names if by_name is None else tuple(class_names(to_plain(by_name)))
    if OmegaConf.select(cfg, "train.match_classes") != "index" or len(names) != len(ours.names):
        yield from order_faults(ours.names, f"{train.names[0]} (training)", names, f"{test.names[0]} (test)")
    if theirs.names != names:
        yield (
            "dataloader.test.dataset.classes and dataloader.evaluator.classes differ: set both to the same data set or the same names"
        )
    elif ours.keypoint_names != theirs.keypoint_names and ours.keypoint_names and theirs.keypoint_names:
        yield (
            f"{train.names[0]} (training) has the keypoints {short_list(ours.keypoint_names)} and {test.names[0]} (test) "
            f"{short_list(theirs.keypoint_names)}: their order must be the same"
        )


def order_faults(ours: Sequence[str], whose: str, theirs: Sequence[str], other: str) -> Iterator[str]:
    """Yields a line if two lists of classes differ.

    Example:
        >>> next(order_faults(["a", "b"], "train.json (training)", ["b", "a"], "val.json (test)"))[:90]
        "class 0 is 'a' in train.json (training) and 'b' in val.json (test), so results would be wr"
    """
    index = first_difference(ours, theirs)
    if index is not None:
        own, different = (repr(of[index]) if index < len(of) else "missing" for of in (ours, theirs))
        yield (
            f"class {index} is {own} in {whose} and {different} in {other}, so results would be wrong: give both the same classes in the "
            "same order, or set train.match_classes=name to match them by name, or =index if only the names differ"
        )


# The counts of a model that depend on its data.
COUNTS = {
    "model.roi_heads.num_classes": ("names", "class", "classes"),
    "model.roi_heads.keypoint_head.num_keypoints": ("keypoint_names", "keypoint", "keypoints"),
}


def count_faults(cfg: DictConfig, classes: Classes, name: str) -> Iterator[str]:
    """Yields one line for each count of the model that differs from the data set.

    Args:
        cfg: a LazyConfig.
        classes: the classes of the data set.
        name: the data set.

    Example:
        >>> cfg = OmegaConf.create({"model": {"roi_heads": {"num_classes": 1}}})
        >>> list(count_faults(cfg, Classes(("a", "b"), (1, 2)), "coco:a.json"))
        ['model.roi_heads.num_classes=1, but coco:a.json has 2 classes (a, b): set model.roi_heads.num_classes=2']
    """
    for key, (attribute, noun, nouns) in COUNTS.items():
        names, count = getattr(classes, attribute), OmegaConf.select(cfg, key)
        if count is not None and names and count != len(names):
            examples = ", ".join([*names[:3], *(["..."] if len(names) > 3 else [])])
            yield f"{key}={count}, but {name} has {plural(len(names), noun, nouns)} ({examples}): set {key}={len(names)}"


def fill_counts(cfg: DictConfig, classes: Classes, keys: Sequence[str]) -> list[str]:
    """Sets counts of the model to those of the data.

    Args:
        cfg: a LazyConfig; changed in place.
        classes: of the training set.
        keys: the counts that the user has not set, see :func:`maskrcnn_ext.config.provenance.is_shipped_value`.

    Returns:
        One line for each count that has changed.
    """
    lines = []
    for key in keys:
        attribute, _, _ = COUNTS[key]
        names, count = getattr(classes, attribute), OmegaConf.select(cfg, key)
        if count is not None and names and count != len(names):
            OmegaConf.update(cfg, key, len(names))
            lines.append(f"{key}={len(names)}, from the training set ({short_list(names)})")
    return lines
