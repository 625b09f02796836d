"""Ground truth in COCO's form, from whatever holds it, checked and complete."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from pycocotools.coco import COCO

from maskrcnn_ext.data.formats.records import DataSet
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.rle import rle_area, segmentation_to_rle


@dataclass(frozen=True)
class Truth:
    """What is to be found.

    Attributes:
        name: for messages.
        images: COCO's, by rising id.
        categories: COCO's, by rising id.
        annotations: COCO's, ids counted from 1, each with ``bbox``, ``area`` and ``iscrowd``; ``segmentation`` and ``keypoints`` with
            ``num_keypoints`` where there are such.
        sigmas: of the keypoints, where the data set was registered with its own.
    """

    name: str
    images: list[dict[str, Any]]
    categories: list[dict[str, Any]]
    annotations: list[dict[str, Any]]
    sigmas: list[float] = field(default_factory=list)

    def allows(self, task: str) -> bool:
        """Whether every object has what a task (bbox, boundary, keypoints or segm) looks at."""
        key = {"segm": "segmentation", "boundary": "segmentation"}.get(task, task)
        return all(found.get(key) for found in self.annotations)

    def as_coco(self) -> COCO:
        """Returns pycocotools' view of it."""
        coco = COCO()
        coco.dataset = {"images": self.images, "categories": self.categories, "annotations": self.annotations}
        with contextlib.redirect_stdout(io.StringIO()):
            coco.createIndex()
        return coco


# What load_truth takes.
TruthLike: TypeAlias = Truth | COCO | Mapping[str, Any] | Path | str


def load_truth(truth: TruthLike) -> Truth:
    """Reads ground truth.

    Args:
        truth: a COCO annotation file, its content, pycocotools' COCO, or a data set: a registered name or a string such as
            ``coco:/data/val.json@/data/images``. Nothing of it is changed.

    Raises:
        InputError: no such file or data set; content that is not COCO's, or annotations that point nowhere.
    """
    if isinstance(truth, Truth):
        return truth
    if isinstance(truth, COCO):
        return complete(truth.dataset, "the ground truth")
    if isinstance(truth, Mapping):
        return complete(truth, "the ground truth")
    if Path(truth).is_file():
        return complete(read_json(Path(truth)), str(truth))
    if isinstance(truth, Path) or (truth.endswith(".json") and ":" not in truth):
        raise InputError(f"{truth}: no such file: give COCO annotations, or a data set such as coco:val.json@images")
    return _of_data_set(truth)


def complete(dataset: Mapping[str, Any], name: str) -> Truth:
    """Checks COCO's content and fills in what it lacks, as COCO's own tools have made it.

    An ``area`` is that of the mask, or of the box where there is none; ``iscrowd`` is 0; an object without ``keypoints`` among such with
    has none that are visible. Annotations are numbered from 1: to pycocotools, 0 means "not found", and one of two that share an id
    counts twice.

    Raises:
        InputError: what lacks more, or points nowhere.
    """
    for key in ("images", "categories", "annotations"):
        if not isinstance(dataset, Mapping) or not isinstance(dataset.get(key), list):
            raise InputError(f"{name}: has no list of `{key}`, as COCO annotations of what is to be found have")
    if not dataset["categories"]:
        raise InputError(f"{name}: has no `categories`: there is nothing that could be found")
    images = _by_id(dataset["images"], name, "image")
    categories = _by_id(dataset["categories"], name, "category")
    num_values = max((len(found.get("keypoints") or ()) for found in dataset["annotations"]), default=0)
    annotations = []
    for number, found in enumerate(dataset["annotations"], start=1):
        where = f"{name}: annotation {found.get('id', f'number {number}')!r}"
        for key in ("image_id", "category_id", "bbox"):
            if found.get(key) is None:
                raise InputError(f"{where} has no `{key}`")
        if found["image_id"] not in images:
            raise InputError(f"{where} is of image {found['image_id']!r}, which is not there")
        if found["category_id"] not in categories:
            raise InputError(f"{where} is of category {found['category_id']!r}, which is not there")
        annotations.append(_completed(found, number, images[found["image_id"]], num_values, where))
    return Truth(name, list(images.values()), list(categories.values()), annotations)


def to_coco_dict(data: DataSet) -> dict[str, Any]:
    """Returns a data set's records as COCO's content: their own image ids, and category ids from 0 where the data has none of its own."""
    ids = data.category_ids or range(len(data.classes))
    categories: list[dict[str, Any]] = [{"id": own, "name": name} for own, name in zip(ids, data.classes, strict=True)]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for record in data.images:
        size = {"height": record.height, "width": record.width}
        images.append({"id": record.image_id, "file_name": record.file_name, **size})
        for found in record.annotations:
            x0, y0, x1, y1 = found.box
            told: dict[str, Any] = {
                "id": len(annotations) + 1,
                "image_id": record.image_id,
                "category_id": ids[found.category],
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "iscrowd": int(found.crowd),
            }
            if found.segmentation is not None:
                told["segmentation"] = found.segmentation
            if found.keypoints is not None:  # back from sub-pixel coordinates to COCO's indices of pixels
                told["keypoints"] = [v if index % 3 == 2 else v - 0.5 for index, v in enumerate(found.keypoints)]
            annotations.append(told)
    return {"images": images, "categories": categories, "annotations": annotations}


def read_json(file: Path) -> Any:
    """Reads a JSON file.

    Raises:
        InputError: none that can be read.
    """
    try:
        return json.loads(file.read_bytes())
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise InputError(f"{file}: not a JSON file ({error})") from error


def _of_data_set(name: str) -> Truth:
    from detectron2.data import MetadataCatalog

    from maskrcnn_ext.data.registry.catalog import load_dataset
    from maskrcnn_ext.data.registry.resolve import ensure_registered

    ensure_registered(name)
    metadata = MetadataCatalog.get(name)
    # The file itself knows the areas of its objects, and is what Detectron2 evaluates with.
    file = metadata.get("json_file")
    dataset = read_json(Path(file)) if file else to_coco_dict(load_dataset(name))
    return replace(complete(dataset, f"data set {name}"), sigmas=list(metadata.get("keypoint_oks_sigmas") or ()))


def _by_id(records: list[dict[str, Any]], name: str, kind: str) -> dict[Any, dict[str, Any]]:
    for record in records:
        missing = {"image": ("id", "height", "width"), "category": ("id", "name")}[kind]
        for key in missing:
            if key not in record:
                raise InputError(f"{name}: {kind} {record.get('id', '')!r} has no `{key}`")
    found = {record["id"]: record for record in sorted(records, key=lambda record: record["id"])}
    if len(found) < len(records):
        raise InputError(f"{name}: an `id` is there twice among its {kind} records; see maskrcnn-ext check-data")
    return found


def _completed(
    found: dict[str, Any], number: int, image: dict[str, Any], num_values: int, where: str
) -> dict[str, Any]:
    told = {**found, "id": number, "iscrowd": int(found.get("iscrowd") or 0)}
    if found.get("area") is None:
        try:
            told["area"] = _area(found, image)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{where} has neither an `area` nor a `segmentation` that gives one") from error
    if num_values:
        told["keypoints"] = found.get("keypoints") or [0] * num_values
        told.setdefault("num_keypoints", sum(1 for visible in told["keypoints"][2::3] if visible > 0))
    return told


def _area(found: dict[str, Any], image: dict[str, Any]) -> float:
    if found.get("segmentation"):
        return float(rle_area(segmentation_to_rle(found["segmentation"], image["height"], image["width"])))
    return float(found["bbox"][2] * found["bbox"][3])
