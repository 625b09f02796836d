"""Prepares the data of a plan: reads and measures it, holds out images to validate on, and leaves out what cannot be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from maskrcnn_ext.common.text import plural, short_list
from maskrcnn_ext.config.plan.machine import inspect_machine
from maskrcnn_ext.config.plan.rules.canvas import choose_tile
from maskrcnn_ext.data.fingerprint import Fingerprint, fingerprint
from maskrcnn_ext.data.formats.records import DataSet, ImageRecord
from maskrcnn_ext.data.registry.catalog import load_dataset
from maskrcnn_ext.data.registry.class_map import mapped_name, write_class_map
from maskrcnn_ext.data.registry.listed import listed_name, split_listed_name, write_list
from maskrcnn_ext.data.registry.resolve import absolute_name, ensure_registered
from maskrcnn_ext.data.registry.splits import detect_splits
from maskrcnn_ext.data.registry.tiled import tile_of, tiled_name
from maskrcnn_ext.data.tools.hold_out import divide, find_broken, hold_out
from maskrcnn_ext.errors import InputError

_SHARE = 0.2  # of the images, held out for validation


@dataclass(frozen=True)
class Prepared:
    """The data of a plan.

    Attributes:
        train: to train on.
        val: to validate on; None if the only image has to serve for both.
        notes: what was done to the data, one line each.
    """

    train: Fingerprint
    val: Fingerprint | None
    notes: tuple[str, ...] = ()


def prepare_data(name: str, val_name: str | None, prefix: Path) -> Prepared:
    """Reads and measures data sets.

    Without `val_name`, data with splits is validated on its own, see :func:`~maskrcnn_ext.data.registry.splits.detect_splits`. Of other
    data, a fifth of the images is held out, and ``<prefix>_train.txt`` and ``<prefix>_val.txt`` list the images of each part. They are
    written too if an image cannot be read, which the part then leaves out.

    Args:
        name: the data to train on, as in ``dataset.names``.
        val_name: the data to validate on; None to hold out images.
        prefix: of the files.

    Raises:
        InputError: the data is missing or broken.

    Example::

        data = prepare_data("/data/export", None, Path("my_config"))
        found = plan(data.train, inspect_machine(), val=data.val)
    """
    notes: list[str] = []
    train, val = _read_splits(name) if val_name is None else (_read(name), _read(val_name))
    if val is not None and val_name is None and not val.data.images:
        notes.append(f"{val.name} has no image to validate on")
        val = None
    if val is not None:
        train, val = _with_same_classes(train, val, Path(f"{prefix}_classes.yaml"), notes)
        if val_name is None:
            notes.insert(0, f"validates on the data's own split: {val.name}")
    (name, data), whole, tile = _cut(train)
    if tile:
        notes.append(f"cut into tiles of {tile} x {tile} pixels, for training and validation: {name}")
    if val is not None:
        if tile:
            val = _read(tiled_name(val.name, tile))
        part = _sound_part(whole, data, Path(f"{prefix}_train.txt"))
        # Training skips images that break while they are decoded, and evaluation does not.
        found = _sound_part(fingerprint(*val), val.data, Path(f"{prefix}_val.txt"), find_broken(val.data.images))
        return Prepared(part, found, tuple(notes))
    if len(data.images) - len(whole.images.unreadable_ids) < 2:
        return Prepared(_sound_part(whole, data, Path(f"{prefix}_train.txt")), None, tuple(notes))
    broken: dict[int | str, str] = {}
    held = hold_out(data.images, _SHARE, leave_out=whole.images.unreadable_ids, faults=broken)
    kept = _part(whole, data, _apart(held.train, held.val), Path(f"{prefix}_train.txt"))
    part = _part(whole, data, held.val, Path(f"{prefix}_val.txt"))
    how = (
        "the end of the only sequence of images"
        if held.num_groups == 1
        else "by class" + (", similar images in one part" if held.num_groups < len(held.train) + len(held.val) else "")
    )
    note = f"held out {plural(len(held.val), 'image')} of {len(data.images)} for validation, {how}: {prefix}_val.txt"
    return Prepared(kept, part, (*notes, note, *_unreadable(whole, broken)))


class _Read(NamedTuple):
    """A data set: its absolute name and its records."""

    name: str
    data: DataSet


def _read_splits(name: str) -> tuple[_Read, _Read | None]:
    """Returns the data to train on and to validate on; the second is None if the name means no splits, or they show the same images."""
    path = Path(name).expanduser().absolute()
    splits = detect_splits(path) if path.exists() else None
    if splits is None:
        return _read(name), None
    train, val = _read(splits[0]), None if splits[1] is None else _read(splits[1])
    return train, None if val is None or _files(train) & _files(val) else val


def _files(read: _Read) -> set[str]:
    return {record.file_name for record in read.data.images}


def _with_same_classes(train: _Read, val: _Read, file: Path, notes: list[str]) -> tuple[_Read, _Read]:
    """Returns both with the same classes: those of the training, and then those that only the validation has.

    Args:
        train: to train on.
        val: to validate on. Data that shares no class is not changed.
        file: of the map of the classes, which is written if the files state other classes.
        notes: gets what was done.
    """
    classes = list(dict.fromkeys([*train.data.classes, *val.data.classes]))
    if train.data.classes == val.data.classes or not set(train.data.classes) & set(val.data.classes):
        return train, val
    notes.append(
        f"training has the classes {short_list(train.data.classes)}, validation {short_list(val.data.classes)}: "
        f"both are read with {short_list(classes)}"
    )
    return _with_classes(train, classes, file), _with_classes(val, classes, file)


def _with_classes(read: _Read, classes: list[str], file: Path) -> _Read:
    if read.data.classes == classes:
        return read
    if "@list:" not in read.name and "@tiles:" not in read.name:
        with suppress(InputError):  # the files state their classes
            return _read(f"{read.name}@classes:{','.join(classes)}")
    write_class_map(file, classes)
    return _read(mapped_name(read.name, file.absolute()))


def prepare_folds(name: str, folds: int, prefixes: Sequence[Path]) -> tuple[str, list[Prepared]]:
    """Divides a data set into folds: each validates on one part and trains on the others, as :func:`prepare_data` does with its parts.

    Args:
        name: the data, as in ``dataset.names``.
        folds: number of parts, 2 or more.
        prefixes: of the files that list the images, one for each fold.

    Returns:
        The absolute name of the whole data set, and the data of each fold.

    Raises:
        InputError: the data is missing or broken, or cannot be divided into so many parts.
    """
    (name, data), whole, _ = _cut(_read_splits(name)[0])
    broken: dict[int | str, str] = {}
    parts = divide(data.images, folds, leave_out=whole.images.unreadable_ids, faults=broken)
    prepared = []
    for part, prefix in zip(parts, prefixes, strict=True):
        held = {record.image_id for record in part}
        kept = [record for other in parts for record in other if record.image_id not in held]
        train = _part(whole, data, _apart(kept, part), Path(f"{prefix}_train.txt"))
        prepared.append(
            Prepared(train, _part(whole, data, part, Path(f"{prefix}_val.txt")), tuple(_unreadable(whole, broken)))
        )
    return name, prepared


def _cut(read: _Read) -> tuple[_Read, Fingerprint, int]:
    """Returns a data set, cut into tiles if its images are large, its figures, and the side of the tiles; 0 for none."""
    found = fingerprint(*read)
    tile = 0 if tile_of(read.name) else choose_tile(found, inspect_machine())
    if not tile:
        return read, found, 0
    whole, file = split_listed_name(read.name)
    if file is not None:
        raise InputError(
            f"{read.name}: its images are large: list tiles of {tiled_name(whole, tile)} instead of images"
        )
    read = _read(tiled_name(read.name, tile))
    return read, fingerprint(*read), tile


def _apart(train: Sequence[ImageRecord], val: Sequence[ImageRecord]) -> list[ImageRecord]:
    """Returns the records to train on that show no pixel to validate on: tiles of one raster overlap."""
    windows: dict[str, list[list[int]]] = {}
    for record in val:
        if "window" in record.extra:
            windows.setdefault(record.file_name, []).append(record.extra["window"])

    def shows(record: ImageRecord) -> bool:
        others = windows.get(record.file_name, [])
        return "window" in record.extra and any(_meet(record.extra["window"], other) for other in others)

    return [record for record in train if not shows(record)]


def _meet(one: Sequence[int], other: Sequence[int]) -> bool:
    """Returns whether two windows x, y, width, height share a pixel."""
    return all(one[i] < other[i] + other[i + 2] and other[i] < one[i] + one[i + 2] for i in (0, 1))


def _read(name: str) -> _Read:
    name = absolute_name(name)
    if ":" not in name:
        try:
            ensure_registered(name)
        except InputError as error:
            if Path(name).expanduser().exists():
                raise
            raise InputError(f"{name}: no such file or folder, and {error}") from error
    return _Read(name, load_dataset(name))


def _sound_part(
    found: Fingerprint, data: DataSet, file: Path, broken: Mapping[int | str, str] = MappingProxyType({})
) -> Fingerprint:
    """Returns the fingerprint of the images that can be read; `broken` has a line for each of those whose header alone can be."""
    bad = {*found.images.unreadable_ids, *broken}
    if not bad:
        return found
    lines = found.images.unreadable + tuple(
        line for image_id, line in broken.items() if image_id not in found.images.unreadable_ids
    )
    part = _part(found, data, [record for record in data.images if record.image_id not in bad], file)
    return replace(part, images=replace(part.images, unreadable=lines))


def _part(whole: Fingerprint, data: DataSet, records: list[ImageRecord], file: Path) -> Fingerprint:
    write_list(file, records)
    return fingerprint(listed_name(whole.name, file.absolute()), replace(data, images=records))


def _unreadable(found: Fingerprint, broken: Mapping[int | str, str]) -> list[str]:
    bad = [*found.images.unreadable, *broken.values()]
    return [f"{plural(len(bad), 'image')} left out: {bad[0]}; maskrcnn-ext check-data lists all"] if bad else []
