"""Hands data sets to Detectron2's catalogue: by name, or by a string that says format and place.

Nothing is read until a data set is asked for. Relative paths are looked up below ``$DETECTRON2_DATASETS`` (``./datasets`` when it is
not set), as Detectron2's own data sets are.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from maskrcnn_ext.data.keypoints import flip_map
from maskrcnn_ext.errors import InputError

# Format -> the arguments of `register` that it needs, and those that it takes beside them.
FORMATS: dict[str, tuple[set[str], set[str]]] = {
    "coco": ({"json"}, {"classes"}),
    "via": ({"json", "classes"}, {"attribute"}),
    "dsb2018": ({"classes"}, {"split"}),
}
_COCO_LAYOUT = "coco/{train,val}2017/*.jpg and coco/annotations/{instances,person_keypoints}_{train,val}2017.json"


def dataset_root() -> Path:
    """Returns the folder below which relative data-set paths are looked up."""
    return Path(os.environ.get("DETECTRON2_DATASETS", "datasets")).expanduser()


def register(
    name: str,
    *,
    format: str,
    images: str | Path,
    json: str | Path | None = None,
    classes: Sequence[str] | None = None,
    attribute: str | None = None,
    split: Callable[[list[str]], list[str]] | None = None,
    layout: str = "",
) -> None:
    """Registers a data set with Detectron2. Doing so again with the same arguments changes nothing.

    Args:
        name: what ``dataset.names`` calls it.
        format: "coco" (instances or keypoints JSON), "via" (VGG Image Annotator JSON) or "dsb2018" (a folder of masks an image).
        images: the folder of the images; relative to :func:`dataset_root`.
        json: the annotation file, for "coco" and "via"; relative to :func:`dataset_root`.
        classes: class names in the order of the model's outputs. A COCO JSON brings its own, which must then be these.
        attribute: for "via" with several classes, the region attribute that holds the class name.
        split: for "dsb2018", picks this data set's image ids out of all ids, sorted.
        layout: the folder layout to show in the error message when the data is not found.

    Raises:
        InputError: an unknown format, arguments that the format does not take, or a name that means other data already.
    """
    from detectron2.data import DatasetCatalog, MetadataCatalog

    if format not in FORMATS:
        raise InputError(f"data set {name}: unknown format {format!r}, expected one of {', '.join(FORMATS)}")
    needs, takes = FORMATS[format]
    given = {"json": json, "classes": classes, "attribute": attribute, "split": split}
    for argument, value in given.items():
        if value is None and argument in needs:
            raise InputError(f"data set {name}: format {format} needs `{argument}`")
        if value is not None and argument not in needs | takes:
            raise InputError(f"data set {name}: format {format} takes no `{argument}`")
    split_name = f"{split.__module__}.{split.__qualname__}" if split else None
    source = repr((format, str(images), str(json), tuple(classes or ()), attribute, split_name))
    if name in DatasetCatalog.list():
        known = MetadataCatalog.get(name).get("source", "another program's registration")
        if known != source:
            raise InputError(f"data set {name} is registered already, as {known}: choose another name")
        return

    metadata = MetadataCatalog.get(name).set(source=source, evaluator_type="coco")
    if classes and format != "coco":
        metadata.set(thing_classes=list(classes))
    if format == "coco":
        # The evaluator reads the same file, under the same category ids.
        metadata.set(json_file=str(dataset_root() / str(json)))

    def load() -> list[dict[str, Any]]:
        image_dir, json_file = dataset_root() / images, dataset_root() / str(json)
        for path in (image_dir, json_file) if json is not None else (image_dir,):
            if not path.exists():
                raise InputError(_not_found(name, path, layout))
        if format == "coco":
            return _load_coco(name, json_file, image_dir, classes)
        if format == "via":
            from maskrcnn_ext.data.formats.via import read_via

            return _to_dicts(read_via(json_file, image_dir, classes=classes or (), attribute=attribute))
        from maskrcnn_ext.data.formats.dsb2018 import list_ids, read_dsb2018

        ids = list_ids(image_dir)
        return _to_dicts(read_dsb2018(image_dir, ids=split(ids) if split else ids))

    DatasetCatalog.register(name, load)


def get_dataset_dicts(
    names: str | Sequence[str],
    filter_empty: bool = True,
    min_keypoints: int = 0,
    proposal_files: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Detectron2's ``get_detection_dataset_dicts`` that also takes data nobody has registered.

    Args:
        names: one or more registered names, or strings such as ``coco:/data/train.json@/data/images``.
        filter_empty: drop images without annotations (crowds alone count as none).
        min_keypoints: drop images with fewer visible keypoints.
        proposal_files: as in Detectron2.

    Returns:
        Records in Detectron2's standard format.

    Raises:
        InputError: an unknown name or a string of another form; data that is not where it should be.
    """
    from detectron2.data import get_detection_dataset_dicts

    names = [names] if isinstance(names, str) else list(names)
    for name in names:
        ensure_registered(name)
    try:
        return get_detection_dataset_dicts(
            names, filter_empty=filter_empty, min_keypoints=min_keypoints, proposal_files=proposal_files
        )
    except FileNotFoundError as error:  # Detectron2's own data sets, such as coco_2017_train
        if error.filename is None:
            raise
        layout = _COCO_LAYOUT if any("coco_2017" in name for name in names) else ""
        raise InputError(_not_found(", ".join(names), Path(error.filename), layout)) from error


def ensure_registered(name: str) -> None:
    """Registers what a string such as ``coco:/data/train.json@/data/images`` describes; leaves a registered name alone.

    Raises:
        InputError: neither a registered name nor such a string.
    """
    from detectron2.data import DatasetCatalog

    from maskrcnn_ext.data.domains import register_domains

    register_domains()
    if name in DatasetCatalog.list():
        return
    described = re.fullmatch(r"coco:(.+?\.json)@(.+)", name)
    if described:
        json_file, images = (Path(path).expanduser().absolute() for path in described.groups())
        register(name, format="coco", json=json_file, images=images)
        return
    near = difflib.get_close_matches(name, DatasetCatalog.list(), n=3)
    advice = (
        f"did you mean {' or '.join(near)}?"
        if near
        else "write coco:/path/annotations.json@/path/images, or register it"
    )
    raise InputError(f"no data set {name!r} is registered: {advice}")


def _not_found(name: str, path: Path, layout: str) -> str:
    where = "" if os.environ.get("DETECTRON2_DATASETS") else " (DETECTRON2_DATASETS is not set)"
    expected = f"; expected below {dataset_root()}: {layout}" if layout else ""
    return f"data set {name}: no such file or folder: {path}{where}{expected}"


def _load_coco(name: str, json_file: Path, images: Path, classes: Sequence[str] | None) -> list[dict[str, Any]]:
    from detectron2.data import MetadataCatalog
    from detectron2.data.datasets import load_coco_json

    dicts: list[dict[str, Any]] = load_coco_json(str(json_file), str(images), name)
    found = MetadataCatalog.get(name).thing_classes
    if classes and list(classes) != found:
        raise InputError(f"data set {name}: `classes` are {', '.join(classes)}, but {json_file} has {', '.join(found)}")
    if any("keypoints" in annotation for record in dicts[:1] for annotation in record["annotations"]):
        categories = json.loads(json_file.read_text(encoding="utf-8"))["categories"]
        keypoint_names = next((category["keypoints"] for category in categories if "keypoints" in category), None)
        if keypoint_names:
            MetadataCatalog.get(name).set(keypoint_names=keypoint_names, keypoint_flip_map=flip_map(keypoint_names))
    return dicts


def _to_dicts(records: list[Any]) -> list[dict[str, Any]]:
    from detectron2.structures import BoxMode

    return [
        {
            "file_name": record.file_name,
            "image_id": record.image_id,
            "height": record.height,
            "width": record.width,
            "annotations": [
                {
                    "bbox": list(annotation.box),
                    "bbox_mode": BoxMode.XYXY_ABS,
                    "category_id": annotation.category,
                    "segmentation": annotation.segmentation,
                    "iscrowd": 0,
                }
                for annotation in record.annotations
            ],
        }
        for record in records
    ]
