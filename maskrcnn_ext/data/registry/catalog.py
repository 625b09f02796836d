"""Registers data sets with Detectron2 and reads them.

No file is read until a data set is asked for. Relative paths are looked up below ``$DETECTRON2_DATASETS`` (``./datasets`` if it is not
set), as for Detectron2's own data sets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from maskrcnn_ext.common.text import plural
from maskrcnn_ext.data.formats import get_format
from maskrcnn_ext.data.formats.records import DataSet, ImageRecord
from maskrcnn_ext.data.registry.classes import first_difference, map_by_name
from maskrcnn_ext.data.registry.dicts import from_dicts
from maskrcnn_ext.data.registry.keypoints import Skeleton
from maskrcnn_ext.data.registry.resolve import described_source, ensure_registered
from maskrcnn_ext.data.registry.source import Source, not_found_message
from maskrcnn_ext.errors import InputError

_COCO_LAYOUT = "coco/{train,val}2017/*.jpg and coco/annotations/{instances,person_keypoints}_{train,val}2017.json"


def register(
    name: str,
    *,
    format: str,
    classes: Sequence[str] | None = None,
    layout: str = "",
    colors: Mapping[str, Sequence[int]] | None = None,
    select: Callable[[list[ImageRecord]], list[ImageRecord]] | None = None,
    skeleton: Skeleton | None = None,
    ignored: Sequence[str] = (),
    **options: Any,
) -> None:
    """Registers a data set with Detectron2. Registering it again with the same arguments changes nothing.

    Args:
        name: the name for ``dataset.names``.
        format: one of :data:`maskrcnn_ext.data.formats.FORMATS`.
        classes: class names in the order of the model's outputs. Many formats know them from the files.
        layout: the folder layout that the error message shows if the data is missing.
        colors: (R, G, B) from 0 to 255 of every class name, for pictures.
        select: returns the records of this data set, given all that are read. Makes a split of data that has none.
        skeleton: the keypoints, for training, pictures and OKS. Names and links of a COCO file are known without it. The model
            needs ``model.roi_heads.keypoint_head.num_keypoints`` set to the number of keypoints.
        ignored: classes of the files whose objects are ignore regions, such as KITTI's DontCare; ``classes`` are the others.
        options: the options of the format, such as ``json=`` and ``images=`` for "coco": see ``maskrcnn_ext.data.formats.<format>``.
            Relative paths are below :func:`~maskrcnn_ext.data.registry.source.dataset_root`.

    Raises:
        InputError: the format is unknown, an option is unknown or missing, `colors` are for other classes, or the name is registered
            for other data.

    Example:
        >>> register("parts_train", format="coco", json="parts/train.json", images="parts/images")
        >>> from detectron2.data import DatasetCatalog
        >>> "parts_train" in DatasetCatalog.list()
        True
        >>> DatasetCatalog.remove("parts_train")
    """
    Source.create(
        name,
        format=format,
        classes=classes,
        layout=layout,
        colors=colors,
        select=select,
        skeleton=skeleton,
        ignored=ignored,
        **options,
    ).register()


def load_dataset(name: str) -> DataSet:
    """Reads a data set into plain records. Detectron2's dicts are made only if another program registered the data set.

    Args:
        name: a registered name, or a string such as ``coco:/data/train.json@/data/images``.

    Raises:
        InputError: the name is unknown, or the data is missing or broken.

    Example:
        ::

            data = load_dataset("coco:/data/train.json@/data/images")
            print(data.classes, len(data.images))
    """
    from detectron2.data import DatasetCatalog

    ensure_registered(name)
    registered = DatasetCatalog[name]
    if isinstance(registered, Source):
        return registered.read()
    try:
        return from_dicts(name, DatasetCatalog.get(name))
    except FileNotFoundError as error:
        raise _missing_file_error([name], error) from error


def format_of(name: str) -> str | None:
    """Returns the format of a data set; None if it is unknown or another program registered it."""
    from detectron2.data import DatasetCatalog

    try:
        ensure_registered(name)
    except InputError:
        return None
    source = DatasetCatalog[name]
    return source.format if isinstance(source, Source) else None


def split_note(name: str) -> str:
    """Returns which split of its files a data set is, and which others they have; "" if they have no others.

    Raises:
        InputError: the name is unknown, or the file that lists the splits cannot be read.
    """
    source: Any = described_source(name)
    if source is None:
        from detectron2.data import DatasetCatalog

        ensure_registered(name)
        source = DatasetCatalog[name]
    return source.split_note() if isinstance(source, Source) else ""


def read_class_names(name: str) -> list[str]:
    """Returns the class names of a registered data set, or of a string such as ``coco:/data/a.json@/data/images``.

    Raises:
        InputError: the data set is not registered, or it cannot be read.
    """
    from detectron2.data import MetadataCatalog

    ensure_registered(name)
    # Detectron2's own data sets and those read before have the names in their metadata.
    classes = MetadataCatalog.get(name).get("thing_classes")
    return list(classes) if classes else load_dataset(name).classes


def class_names(classes: str | Sequence[str]) -> list[str]:
    """Returns the names of an argument that is a list of them, or a data set that has them.

    Raises:
        InputError: a name occurs twice, so that the mapping by name is ambiguous; and as :func:`read_class_names`.
    """
    names = read_class_names(classes) if isinstance(classes, str) else [str(name) for name in classes]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise InputError(f"class {repeated!r} occurs twice: classes with equal names cannot be mapped by name")
    return names


def get_dataset_dicts(
    names: str | Sequence[str],
    filter_empty: bool = True,
    min_keypoints: int = 0,
    proposal_files: Sequence[str] | None = None,
    classes: str | Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Detectron2's ``get_detection_dataset_dicts`` that also reads data sets that are not registered.

    Args:
        names: registered names, or strings such as ``coco:/data/train.json@/data/images``.
        filter_empty: drop images without annotations other than crowds.
        min_keypoints: drop images with fewer visible keypoints.
        proposal_files: as in Detectron2.
        classes: class names in the order of the model's outputs, or a data set that has them: the objects of all data sets are mapped
            to them by name, and those of other classes are left out. None if all data sets have the same classes in the same order.

    Returns:
        Records in Detectron2's standard format.

    Raises:
        InputError: a name is unknown, data is missing or broken, no image is left, or the classes of the data sets differ.

    Example:
        As an override of any LazyConfig::

            dataloader.train.dataset._target_=maskrcnn_ext.get_dataset_dicts
            dataloader.train.dataset.names=coco:/data/train.json@/data/images
    """
    names = [names] if isinstance(names, str) else list(names)
    for name in names:
        ensure_registered(name)
    if classes is None:
        return _read_dicts(names, filter_empty, min_keypoints, proposal_files)
    order = class_names(classes)
    found = []
    for index, name in enumerate(names):
        files = None if proposal_files is None else [proposal_files[index]]
        records = _read_dicts([name], filter_empty, min_keypoints, files)
        found += map_by_name(records, read_class_names(name), order, name)
    return found


def _read_dicts(
    names: Sequence[str], filter_empty: bool, min_keypoints: int, proposal_files: Sequence[str] | None
) -> list[dict[str, Any]]:
    from detectron2.data import get_detection_dataset_dicts

    try:
        return get_detection_dataset_dicts(
            names, filter_empty=filter_empty, min_keypoints=min_keypoints, proposal_files=proposal_files
        )
    except FileNotFoundError as error:  # Detectron2's own data sets, such as coco_2017_train
        raise _missing_file_error(names, error) from error
    except AssertionError as error:  # Detectron2 asserts that images are left
        hint = _empty_hint(names) if filter_empty else ""
        raise InputError(f"data set {', '.join(names)}: {error}{hint}") from error
    except ValueError as error:
        if "different metadata 'thing_classes'" not in str(error):
            raise
        raise InputError(_difference_between(names)) from error


def _difference_between(names: Sequence[str]) -> str:
    """Returns the message for data sets that do not have the same classes in the same order."""
    first = read_class_names(names[0])
    for name in names[1:]:
        classes = read_class_names(name)
        index = first_difference(first, classes)
        if index is not None:
            own, other = (repr(of[index]) if index < len(of) else "missing" for of in (first, classes))
            break
    return (
        f"data sets {names[0]} and {name} have different classes: class {index} is {own} in the first and {other} in the second: set "
        f"dataset.classes={names[0]} to map their objects by name"
    )


def _empty_hint(names: Sequence[str]) -> str:
    """Returns why no image has objects."""
    from detectron2.data import DatasetCatalog

    dicts = [image for name in names for image in DatasetCatalog.get(name)]
    num_crowds = sum(len(image.get("annotations", [])) for image in dicts)
    if not num_crowds:
        return f": none of its {plural(len(dicts), 'image')} has an object"
    source = DatasetCatalog[names[0]]
    option = get_format(source.format).crowd_option if isinstance(source, Source) else None
    advice = f": if they are single objects, add @{option} to the string of the data set" if option else ""
    return f": the objects of its {plural(len(dicts), 'image')} are all crowds ({num_crowds}), on which nothing is trained{advice}"


def _missing_file_error(names: Sequence[str], error: FileNotFoundError) -> Exception:
    """Returns the exception to raise for a file that Detectron2 did not find."""
    if error.filename is None:
        return error
    layout = _COCO_LAYOUT if any("coco_2017" in name for name in names) else ""
    return InputError(not_found_message(", ".join(names), Path(error.filename), layout))
