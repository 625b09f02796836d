"""Predictions as files that a label tool opens: pre-annotations with scores, of all images together."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maskrcnn_ext.common.files import atomic_path
from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord
from maskrcnn_ext.data.formats.text_files import read_json
from maskrcnn_ext.data.writers.coco import write_coco_json
from maskrcnn_ext.data.writers.cvat import write_cvat_xml
from maskrcnn_ext.data.writers.files import common_folder, image_names
from maskrcnn_ext.data.writers.label_studio import local_file_url, write_label_studio_json
from maskrcnn_ext.data.writers.labelme import write_labelme_json
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.rle import rle_box

LABEL_KINDS = ("labelme", "cvat", "label-studio", "coco")


def predicted_records(folder: Path, threshold: float) -> DataSet:
    """Returns the predictions of a job as records whose annotations have scores.

    Args:
        folder: with ``predictions.json`` and ``images.json``.
        threshold: least score of the objects.
    """
    table = read_json(folder / "images.json")
    records = {
        image["id"]: ImageRecord(os.path.abspath(image["file_name"]), image["id"], image["height"], image["width"])  # noqa: PTH100
        for image in table["images"]
    }
    index_of = {category["id"]: index for index, category in enumerate(table["categories"])}
    for result in read_json(folder / "predictions.json"):
        if result["score"] >= threshold:
            records[result["image_id"]].annotations.append(_annotation(result, index_of[result["category_id"]]))
    names = [category["name"] for category in table["categories"]]
    return DataSet(names, list(records.values()), list(index_of))


def _annotation(result: dict[str, Any], category: int) -> Annotation:
    x, y, width, height = result["bbox"]
    rle = result.get("segmentation")
    box = (x, y, x + width, y + height) if rle is None or not any(rle_box(rle)) else rle_box(rle)
    return Annotation(category, box, rle if rle and any(rle_box(rle)) else None, score=result["score"])


def write_label_files(data: DataSet, folder: Path, kinds: Sequence[str]) -> Counter[str]:
    """Writes records for label tools, each kind into the folder of its name. The images stay where they are.

    ``labelme`` names them by their absolute paths, and has the files of all images in one folder, as the tool lists them; ``label-studio``
    names them by URLs below their common folder, and the others by their paths below it.

    Args:
        data: the records.
        folder: the folder of the outputs.
        kinds: of :data:`LABEL_KINDS`.

    Returns:
        The contents that the formats cannot express, each with its count.

    Raises:
        InputError: several records are parts of one file.
    """
    lost: Counter[str] = Counter()
    files = Counter(record.file_name for record in data.images)
    several = next((file for file, count in files.items() if count > 1), None)
    if several is not None:
        raise InputError(
            f"{several}: several images are parts of it, which label tools do not open: save them as images"
        )
    top = common_folder(data)
    names = [Path(record.file_name).relative_to(top).as_posix() for record in data.images]
    for kind in kinds:
        with atomic_path(folder / kind) as partial:
            partial.mkdir(parents=True)
            if kind == "coco":
                write_coco_json(data, partial / "annotations.json", names)
            elif kind == "cvat":
                lost += write_cvat_xml(data, partial / "annotations.xml", names)
            elif kind == "label-studio":
                lost += write_label_studio_json(data, partial, [local_file_url(name) for name in names], predicted=True)
            else:
                for record, name in zip(data.images, image_names(data), strict=True):
                    file = (partial / name).with_suffix(".json")
                    write_labelme_json(record, data.classes, file, record.file_name, lost)
    return lost
