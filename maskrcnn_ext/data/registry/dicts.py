"""Converts plain records to Detectron2's standard dicts, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from maskrcnn_ext.common.text import plural
from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord
from maskrcnn_ext.errors import InputError


def to_dicts(data: DataSet) -> list[dict[str, Any]]:
    """Returns one dict per image in Detectron2's standard format, with boxes XYXY_ABS.

    Labelled points of an object are ``point_coords`` [[x, y], ...] and ``point_labels`` [0 or 1, ...], as in Detectron2's
    projects/PointSup. A dict has the key ``labelled_classes``, a list of category ids, if the image labels only some of the classes.
    """
    dicts = []
    for record in data.images:
        annotations = [annotation_to_dict(annotation) for annotation in record.annotations]
        image: dict[str, Any] = {"file_name": record.file_name, "image_id": record.image_id, "height": record.height}
        image |= {"width": record.width, "annotations": annotations}
        if record.labelled_classes is not None:
            image["labelled_classes"] = record.labelled_classes
        dicts.append({**image, **record.extra})
    return dicts


def annotation_to_dict(annotation: Annotation) -> dict[str, Any]:
    """Returns an annotation in Detectron2's standard format, with its box as XYXY_ABS."""
    from detectron2.structures import BoxMode

    entry: dict[str, Any] = {
        "bbox": list(annotation.box),
        "bbox_mode": BoxMode.XYXY_ABS,
        "category_id": annotation.category,
        "iscrowd": int(annotation.crowd),
    }
    # Detectron2 expects a missing key rather than None.
    if annotation.segmentation is not None:
        entry["segmentation"] = annotation.segmentation
    if annotation.keypoints is not None:
        entry["keypoints"] = annotation.keypoints
    if annotation.points is not None:
        points = annotation.points
        entry["point_coords"] = [list(point) for point in zip(points[0::3], points[1::3], strict=True)]
        entry["point_labels"] = points[2::3]
    return entry


_IMAGE_KEYS = ("file_name", "image_id", "height", "width", "annotations", "labelled_classes")


def from_dicts(name: str, dicts: Sequence[dict[str, Any]]) -> DataSet:
    """Returns the records of a data set that another program registered. Class and keypoint names come from its metadata.

    Raises:
        InputError: a dict lacks a key, a box is rotated, or the metadata has no class names.
    """
    from detectron2.data import MetadataCatalog

    metadata = MetadataCatalog.get(name)
    classes = list(metadata.get("thing_classes") or [])
    if not classes:
        raise InputError(f"data set {name}: its metadata has no `thing_classes`; set them where it is registered")
    contiguous = metadata.get("thing_dataset_id_to_contiguous_id") or {}
    category_ids = sorted(contiguous, key=contiguous.__getitem__) if len(contiguous) == len(classes) else None
    images = []
    for index, image in enumerate(dicts):
        where = f"data set {name}: image {image.get('image_id', index)!r}"
        try:
            annotations = [annotation_from_dict(found, len(classes), where) for found in image.get("annotations", [])]
            extra = {key: value for key, value in image.items() if key not in _IMAGE_KEYS}
            sides = int(image["height"]), int(image["width"])
            labelled = image.get("labelled_classes")
            images.append(ImageRecord(str(image["file_name"]), image["image_id"], *sides, annotations, extra, labelled))
        except KeyError as error:
            raise InputError(f"{where}: its dict has no {error}") from error
    return DataSet(classes, images, category_ids, list(metadata.get("keypoint_names") or []))


def annotation_from_dict(found: dict[str, Any], num_classes: int, where: str) -> Annotation:
    """Returns an annotation of Detectron2's standard format as a record.

    Raises:
        InputError: its box is rotated, or its class does not exist; `where` begins the message.
        KeyError: box or class are missing.
    """
    from detectron2.structures import BoxMode

    mode = found["bbox_mode"]
    if mode not in (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS):
        raise InputError(f"{where}: `bbox_mode` is {mode}, expected XYXY_ABS or XYWH_ABS")
    x, y, right, bottom = (float(value) for value in found["bbox"])
    if mode == BoxMode.XYWH_ABS:
        right, bottom = x + right, y + bottom
    category = found["category_id"]
    if not 0 <= category < num_classes:
        raise InputError(
            f"{where}: an annotation has category {category}, but the data set has {plural(num_classes, 'class', 'classes')}"
        )
    segmentation = found.get("segmentation")
    if isinstance(segmentation, dict) and isinstance(segmentation["counts"], bytes):
        segmentation = {**segmentation, "counts": segmentation["counts"].decode("ascii")}
    crowd = bool(found.get("iscrowd", 0))
    keypoints = found.get("keypoints") or None
    annotation = Annotation(category, (x, y, right, bottom), segmentation or None, keypoints, crowd, found.get("id"))
    if found.get("point_coords"):
        marked = zip(found["point_coords"], found["point_labels"], strict=True)
        annotation.points = [float(value) for point, label in marked for value in (*point, label)]
    return annotation
