"""Hands data sets to Detectron2's catalogue: by name, or by a string that says format and place.

Nothing is read until a data set is asked for. Relative paths are looked up below ``$DETECTRON2_DATASETS`` (``./datasets`` when it is
not set), as Detectron2's own data sets are.
"""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from maskrcnn_ext.data.formats import FORMATS, find_reader
from maskrcnn_ext.data.formats.records import DataSet
from maskrcnn_ext.data.keypoints import flip_map
from maskrcnn_ext.errors import InputError

_COCO_LAYOUT = "coco/{train,val}2017/*.jpg and coco/annotations/{instances,person_keypoints}_{train,val}2017.json"


def dataset_root() -> Path:
    """Returns the folder below which relative data-set paths are looked up."""
    return Path(os.environ.get("DETECTRON2_DATASETS", "datasets")).expanduser()


def register(name: str, *, format: str, classes: Sequence[str] | None = None, layout: str = "", **options: Any) -> None:
    """Registers a data set with Detectron2. Doing so again with the same arguments changes nothing.

    Args:
        name: what ``dataset.names`` calls it.
        format: one of :data:`maskrcnn_ext.data.formats.FORMATS`.
        classes: class names in the order of the model's outputs; many formats bring their own.
        layout: the folder layout to show in the error message when the data is not found.
        options: what the format's reader takes, such as ``json=`` and ``images=`` for "coco": see
            ``maskrcnn_ext.data.formats.<format>``. Relative paths are below :func:`dataset_root`.

    Raises:
        InputError: an unknown format, options that it does not take or lacks, or a name that means other data already.
    """
    from detectron2.data import DatasetCatalog, MetadataCatalog

    try:
        reader = find_reader(format)
    except InputError as error:
        raise InputError(f"data set {name}: {error}") from None
    parameters = dict(inspect.signature(reader).parameters)
    parameters.pop("classes", None)
    _check_options(name, format, parameters, options)
    source = repr((format, tuple(classes or ()), *sorted((key, _told(value)) for key, value in options.items())))
    if name in DatasetCatalog.list():
        known = MetadataCatalog.get(name).get("source", "another program's registration")
        if known != source:
            raise InputError(f"data set {name} is registered already, as {known}: choose another name")
        return

    metadata = MetadataCatalog.get(name).set(source=source, evaluator_type="coco")
    if classes:
        metadata.set(thing_classes=list(classes))
    if format == "coco":
        # The evaluator reads the same file, under the same category ids.
        metadata.set(json_file=str(dataset_root() / str(options["json"])))

    def load() -> list[dict[str, Any]]:
        arguments = {
            key: dataset_root() / value if "Path" in str(parameters[key].annotation) and value is not None else value
            for key, value in options.items()
        }
        for path in (value for value in arguments.values() if isinstance(value, Path)):
            if not path.exists():
                raise InputError(_not_found(name, path, layout))
        try:
            data = reader(**arguments, classes=classes)
        except InputError as error:
            raise InputError(f"data set {name}: {error}") from error
        _describe(name, data)
        return _to_dicts(data)

    DatasetCatalog.register(name, load)


def _check_options(
    name: str, format: str, parameters: Mapping[str, inspect.Parameter], options: Mapping[str, Any]
) -> None:
    for option in options:
        if option not in parameters:
            raise InputError(f"data set {name}: format {format} takes no `{option}` (it takes {', '.join(parameters)})")
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and options.get(key) is None:
            raise InputError(f"data set {name}: format {format} needs `{key}`")


def _told(value: Any) -> str:
    """A text that is the same in every process: functions by name, without their address."""
    return f"{value.__module__}.{value.__qualname__}" if callable(value) else str(value)


def _describe(name: str, data: DataSet) -> None:
    """Tells Detectron2 what the file says of classes and keypoints."""
    from detectron2.data import MetadataCatalog

    metadata = MetadataCatalog.get(name)
    if not metadata.get("thing_classes"):
        metadata.set(thing_classes=data.classes)
    if data.category_ids is not None:
        metadata.set(thing_dataset_id_to_contiguous_id={own: index for index, own in enumerate(data.category_ids)})
    if data.keypoints:
        metadata.set(keypoint_names=data.keypoints, keypoint_flip_map=flip_map(data.keypoints))


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
    format, _, places = name.partition(":")
    if format in FORMATS and places:
        reader = find_reader(format)
        keys = [p.name for p in inspect.signature(reader).parameters.values() if p.kind == p.POSITIONAL_OR_KEYWORD]
        paths = [Path(path).expanduser().absolute() for path in _split_places(places, len(keys))]
        needed = [p.name for p in inspect.signature(reader).parameters.values() if p.default is p.empty]
        if len(paths) < len(needed):
            raise InputError(f"data set {name!r}: write {format}:{'@'.join(keys).upper()}")
        options: dict[str, Any] = dict(zip(keys, paths, strict=False))
        register(name, format=format, **options)
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


def _split_places(places: str, count: int) -> list[str]:
    """Cuts ``a.json@images`` at its @; a path may hold one itself, so that the first cut after an existing path counts."""
    if count < 2 or "@" not in places:
        return [places]
    cuts = [index for index, letter in enumerate(places) if letter == "@"]
    cut = next((index for index in cuts if Path(places[:index]).expanduser().exists()), cuts[0])
    return [places[:cut], places[cut + 1 :]]


def _to_dicts(data: DataSet) -> list[dict[str, Any]]:
    from detectron2.structures import BoxMode

    dicts = []
    for record in data.images:
        annotations = []
        for annotation in record.annotations:
            found = {
                "bbox": list(annotation.box),
                "bbox_mode": BoxMode.XYXY_ABS,
                "category_id": annotation.category,
                "iscrowd": int(annotation.crowd),
            }
            # Absent rather than None, as Detectron2 wants it.
            if annotation.segmentation is not None:
                found["segmentation"] = annotation.segmentation
            if annotation.keypoints is not None:
                found["keypoints"] = annotation.keypoints
            annotations.append(found)
        image = {"file_name": record.file_name, "image_id": record.image_id, "height": record.height}
        dicts.append({**image, "width": record.width, "annotations": annotations, **record.extra})
    return dicts
