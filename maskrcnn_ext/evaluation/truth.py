"""Ground truth in COCO's form: read from a file, a COCO object or a dataset, checked, and completed."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from pycocotools.coco import COCO

from maskrcnn_ext.common.text import plural
from maskrcnn_ext.data.formats.coco import check_lists, load_coco, warn_without_area
from maskrcnn_ext.data.formats.coco_annotations import add_annotations
from maskrcnn_ext.data.formats.coco_fields import read_rotated_box
from maskrcnn_ext.data.formats.coco_records import add_labelled_classes, parse_categories, parse_images
from maskrcnn_ext.data.formats.records import Annotation, ImageRecord
from maskrcnn_ext.data.writers.coco import to_coco_dict
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.rle import rle_area, segmentation_to_rle

# JSON has numbers that are not finite, and whole numbers that no float can hold.
LARGEST = 1e300
_FIELDS = {
    "segm": "segmentation",
    "boundary": "segmentation",
}  # of an object, that a task needs; others have the name of the task


@dataclass(frozen=True)
class Truth:
    """Ground truth: the objects that a model should find.

    Attributes:
        name: for messages.
        images: COCO's image records, by rising id.
        categories: COCO's category records, by rising id.
        annotations: COCO's annotation records. Ids count from 1, each has ``bbox``, ``area`` and ``iscrowd``, and ``segmentation`` and
            ``keypoints`` with ``num_keypoints`` if the dataset has them.
        sigmas: OKS sigmas of the keypoints, if the dataset was registered with its own.
    """

    name: str
    images: list[dict[str, Any]]
    categories: list[dict[str, Any]]
    annotations: list[dict[str, Any]]
    sigmas: list[float] = field(default_factory=list)

    def allows(self, task: str) -> bool:
        """Returns whether each object has the fields that a task (bbox, boundary, keypoints or segm) needs."""
        return all(_has(annotation, task) for annotation in self.annotations)

    def why_not(self, task: str) -> str:
        """Returns how many objects lack a field that a task needs, which of them is the first, and in which image."""
        lacking = [annotation for annotation in self.annotations if not _has(annotation, task)]
        return (
            f"{len(lacking)} of {plural(len(self.annotations), 'object')} of {self.name} {'has' if len(lacking) == 1 else 'have'} no "
            f"`{_FIELDS.get(task, task)}`, the first of them in image {lacking[0]['image_id']!r}"
        )

    def as_coco(self) -> COCO:
        """Returns the ground truth as pycocotools' COCO object."""
        coco = COCO()
        coco.dataset = {"images": self.images, "categories": self.categories, "annotations": self.annotations}
        with contextlib.redirect_stdout(io.StringIO()):
            coco.createIndex()
        return coco


def _has(annotation: Mapping[str, Any], task: str) -> bool:
    """Whether an object has what a task needs. Label Studio writes the outline [[]] for a rectangle."""
    value = annotation.get(_FIELDS.get(task, task))
    return any(value) if task in _FIELDS and isinstance(value, list) else bool(value)


# What load_truth accepts.
TruthLike: TypeAlias = Truth | COCO | Mapping[str, Any] | Path | str


def load_truth(truth: TruthLike) -> Truth:
    """Reads ground truth.

    Args:
        truth: a COCO annotation file, its content, pycocotools' COCO, or a dataset: a registered name or a string such as
            ``coco:/data/val.json@/data/images``. It is not changed.

    Raises:
        InputError: the file or dataset does not exist, or its content is broken; the message names the record.

    Example:
        >>> box = {"image_id": 1, "category_id": 1, "bbox": [2, 2, 4, 5]}
        >>> images, categories = [{"id": 1, "height": 8, "width": 8}], [{"id": 1, "name": "cat"}]
        >>> load_truth({"images": images, "categories": categories, "annotations": [box]}).annotations[0]["area"]
        20.0
    """
    if isinstance(truth, Truth):
        return truth
    if isinstance(truth, COCO):
        return complete(truth.dataset, "the ground truth")
    if isinstance(truth, Mapping):
        return complete(truth, "the ground truth")
    if Path(truth).is_file():
        return complete(load_coco(Path(truth)), str(truth))
    if isinstance(truth, Path) or (truth.endswith(".json") and ":" not in truth):
        raise InputError(f"{truth}: no such file: name COCO annotations, or a dataset such as coco:val.json@images")
    return _load_dataset(truth)


def complete(dataset: Mapping[str, Any], name: str) -> Truth:
    """Checks COCO content as the reader for training does, and fills in missing fields.

    A missing ``area`` is that of the mask, or of the box without a mask; a missing ``iscrowd`` is 0. If any object has ``keypoints``,
    an object without them gets invisible ones. Annotations are numbered from 1: pycocotools takes the id 0 for "no match", and
    counts annotations with the same id twice. Annotations whose outline has no area are left out, with a warning.

    Args:
        dataset: with the lists ``images``, ``annotations`` and ``categories``.
        name: of the file or dataset; it begins the error messages.

    Raises:
        InputError: a record is broken, or refers to an image or category that is missing.
    """
    lists = check_lists(dataset, name)
    if "annotations" not in dataset:
        raise InputError(f"{name}: has no list of `annotations`, which ground truth needs")
    categories = parse_categories(lists["categories"], name)
    if not categories:
        raise InputError(f"{name}: `categories` is empty, so there is nothing to find")
    records = parse_images(lists["images"], name)
    found = lists["annotations"]
    parsed = add_annotations(found, records, categories, name, for_evaluation=True)
    num_values = max((len(entry.get("keypoints") or ()) for entry in found), default=0)
    annotations: list[dict[str, Any]] = []
    without_area: list[Any] = []
    add_labelled_classes(lists["images"], records, categories, name)
    for index, (entry, annotation) in enumerate(zip(found, parsed, strict=True)):
        if annotation is None:
            without_area.append(entry.get("id", f"number {index + 1}"))
            continue
        where = f"{name}: annotation {entry.get('id', f'number {index + 1}')!r}"
        completed = _complete_annotation(entry, records[entry["image_id"]], annotation, num_values, where)
        category_id = categories[annotation.category]["id"]
        annotations.append({**completed, "category_id": category_id, "id": len(annotations) + 1})
    warn_without_area(without_area, name)
    for image_record in records.values():
        for category_id in _unlabelled_ids(image_record, categories):
            annotations.append(
                {**_whole_image_crowd(image_record, category_id, num_values), "id": len(annotations) + 1}
            )
    by_id = {image["id"]: image for image in lists["images"]}
    images = [{**by_id[key], "height": record.height, "width": record.width} for key, record in records.items()]
    return Truth(name, images, categories, annotations)


def _unlabelled_ids(image: ImageRecord, categories: Sequence[dict[str, Any]]) -> list[Any]:
    """Returns the ids of the categories that an image does not label."""
    if image.labelled_classes is None:
        return []
    return [category["id"] for index, category in enumerate(categories) if index not in image.labelled_classes]


def _whole_image_crowd(image: ImageRecord, category_id: Any, num_values: int) -> dict[str, Any]:
    """Returns a crowd that covers the image, so that no prediction of the category is wrong, nor an object missed."""
    height, width = image.height, image.width
    keypoints = {"keypoints": [0] * num_values, "num_keypoints": 0} if num_values else {}
    return {
        "image_id": image.image_id,
        "category_id": category_id,
        "bbox": [0, 0, width, height],
        "area": float(height * width),
        "segmentation": {"size": [height, width], "counts": [0, height * width]},
        "iscrowd": 1,
        **keypoints,
    }


def _load_dataset(name: str) -> Truth:
    """Reads the ground truth of a registered dataset, or of one that is given as a string."""
    from detectron2.data import MetadataCatalog

    from maskrcnn_ext.data.registry.catalog import load_dataset
    from maskrcnn_ext.data.registry.resolve import ensure_registered

    ensure_registered(name)
    metadata = MetadataCatalog.get(name)
    # The file has the areas of its objects, and is what Detectron2 evaluates with.
    file = metadata.get("json_file")
    dataset = load_coco(Path(file)) if file else to_coco_dict(load_dataset(name), first_category_id=0)
    return replace(complete(dataset, f"data set {name}"), sigmas=list(metadata.get("keypoint_oks_sigmas") or ()))


def _complete_annotation(
    entry: dict[str, Any], image: ImageRecord, annotation: Annotation, num_values: int, where: str
) -> dict[str, Any]:
    """Returns a copy of an annotation record with all fields that the evaluation needs, except its id.

    Args:
        entry: the record.
        image: its image.
        annotation: the record as the parser has read it.
        num_values: how many numbers ``keypoints`` must have; 0 for a dataset without keypoints.
        where: begins the error message.
    """
    completed = {**entry, "image_id": image.image_id, "iscrowd": int(annotation.crowd)}
    if annotation.segmentation is not None:
        completed["segmentation"] = annotation.segmentation
    if read_rotated_box(entry) is not None:
        x0, y0, x1, y1 = annotation.box
        completed["bbox"] = [x0, y0, x1 - x0, y1 - y0]
    area = entry.get("area")
    if area is None:
        completed["area"] = _area(annotation, image)
    elif isinstance(area, bool) or not isinstance(area, int | float) or not abs(area) <= LARGEST:
        raise InputError(f"{where} has the `area` {area!r:.100}, expected a number")
    if num_values:
        completed["keypoints"] = entry.get("keypoints") or [0] * num_values
        completed.setdefault("num_keypoints", sum(1 for visible in completed["keypoints"][2::3] if visible > 0))
    return completed


def _area(annotation: Annotation, image: ImageRecord) -> float:
    """Returns the number of pixels of the mask, or the area of the box without a mask."""
    if annotation.segmentation is not None:
        return float(rle_area(segmentation_to_rle(annotation.segmentation, image.height, image.width)))
    x0, y0, x1, y1 = annotation.box
    return float((x1 - x0) * (y1 - y0))
