"""Hands data sets to Detectron2's catalogue: by name, or by a string that says format and place.

Nothing is read until a data set is asked for. Relative paths are looked up below ``$DETECTRON2_DATASETS`` (``./datasets`` when it is
not set), as Detectron2's own data sets are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from maskrcnn_ext.common.text import did_you_mean
from maskrcnn_ext.data.formats import FORMATS, get_format
from maskrcnn_ext.data.formats.records import DataSet, ImageRecord
from maskrcnn_ext.data.registry.dicts import from_dicts
from maskrcnn_ext.data.registry.keypoints import Skeleton
from maskrcnn_ext.data.registry.source import Source, not_found
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
    **options: Any,
) -> None:
    """Registers a data set with Detectron2. Doing so again with the same arguments changes nothing.

    Args:
        name: what ``dataset.names`` calls it.
        format: one of :data:`maskrcnn_ext.data.formats.FORMATS`.
        classes: class names in the order of the model's outputs; many formats bring their own.
        layout: the folder layout to show in the error message when the data is not found.
        colors: (R, G, B) of every class name, from 0 to 255, that pictures are to be drawn with.
        select: picks the records of this data set out of all that are read, for a split of data that comes without one.
        skeleton: of keypoints, for training, pictures and OKS; of a COCO file, names and links are known without it. A model for it
            needs ``model.roi_heads.keypoint_head.num_keypoints`` set to the number of its names.
        options: what the format's reader takes, such as ``json=`` and ``images=`` for "coco": see
            ``maskrcnn_ext.data.formats.<format>``. Relative paths are below :func:`dataset_root`.

    Raises:
        InputError: an unknown format, options that it does not take or lacks, colours of other classes, or a name that means other
            data already.
    """
    names = tuple(classes or ())
    register_source(
        Source(name, format, names, layout, options=options, colors=colors or {}, select=select, skeleton=skeleton)
    )


def register_source(source: Source) -> None:
    """Registers what is read from a :class:`Source`; see :func:`register`."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    source.check()
    if source.name in DatasetCatalog.list():
        known = MetadataCatalog.get(source.name).get("source", "another program's registration")
        if known != source.describe():
            raise InputError(f"data set {source.name} is registered already, as {known}: choose another name")
        return
    metadata = MetadataCatalog.get(source.name).set(source=source.describe(), evaluator_type="coco")
    if source.classes:
        metadata.set(**source.class_metadata(source.classes))
    if source.skeleton:
        metadata.set(**source.skeleton.metadata())
    if source.format == "coco" and source.select is None:
        # The evaluator reads the same file, under the same category ids.
        metadata.set(json_file=str(source.path_of("json")))
    DatasetCatalog.register(source.name, source)


def load_dataset(name: str) -> DataSet:
    """Reads a data set into plain records, without Detectron2's dicts between where its reader is ours.

    Args:
        name: as for :func:`get_dataset_dicts`.

    Raises:
        InputError: an unknown name or a string of another form; data that is not where it should be, or that is broken.
    """
    from detectron2.data import DatasetCatalog

    ensure_registered(name)
    registered = DatasetCatalog[name]
    if isinstance(registered, Source):
        return registered.read()
    try:
        return from_dicts(name, DatasetCatalog.get(name))
    except FileNotFoundError as error:
        raise _missing([name], error) from error


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
        InputError: an unknown name or a string of another form; data that is not where it should be, that is broken, or no image of
            which is left.
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
        raise _missing(names, error) from error
    except AssertionError as error:  # no image, or none that is left
        hint = " (filter_empty=False keeps images without objects)" if filter_empty else ""
        raise InputError(f"data set {', '.join(names)}: {error}{hint}") from error


def _missing(names: Sequence[str], error: FileNotFoundError) -> Exception:
    """What to raise for a file that Detectron2 has not found."""
    if error.filename is None:
        return error
    layout = _COCO_LAYOUT if any("coco_2017" in name for name in names) else ""
    return InputError(not_found(", ".join(names), Path(error.filename), layout))


def ensure_registered(name: str) -> None:
    """Registers what a string such as ``coco:/data/train.json@/data/images`` describes; leaves a registered name alone.

    Raises:
        InputError: neither a registered name nor such a string.
    """
    from detectron2.data import DatasetCatalog

    from maskrcnn_ext.data.registry.domains import register_domains
    from maskrcnn_ext.data.registry.team_catalog import register_team_catalog

    register_team_catalog()  # first: a name that a team has given to its own data is left to it
    register_domains()
    if name in DatasetCatalog.list():
        return
    format, _, places = name.partition(":")
    if format in FORMATS and places:
        record = get_format(format)
        paths = [Path(path).expanduser().absolute() for path in _split_places(places, len(record.shorthand))]
        if len(paths) < sum(option.required for option in record.options):
            raise InputError(f"data set {name!r}: write {record.usage}")
        options: dict[str, Any] = dict(zip(record.shorthand, paths, strict=False))
        register(name, format=format, **options)
        return
    registered = [
        known for known in DatasetCatalog.list() if ":" not in known
    ]  # files that were given before are no names
    advice = did_you_mean(name, registered) or "write coco:/path/annotations.json@/path/images, or register it"
    raise InputError(f"no data set {name!r} is registered: {advice}")


def _split_places(places: str, count: int) -> list[str]:
    """Cuts ``a.json@images`` at its @; a path may hold one itself, so that the first cut after an existing path counts."""
    if count < 2 or "@" not in places:
        return [places]
    cuts = [index for index, letter in enumerate(places) if letter == "@"]
    cut = next((index for index in cuts if Path(places[:index]).expanduser().exists()), cuts[0])
    return [places[:cut], places[cut + 1 :]]
