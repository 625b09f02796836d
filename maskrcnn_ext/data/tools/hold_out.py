"""Holds out images for validation, so that no image to train on shows what an image to test on shows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from PIL import Image

from maskrcnn_ext.common.progress import track
from maskrcnn_ext.common.text import natural_sort_key, plural
from maskrcnn_ext.data.check.duplicates import correlate_neighbours, find_near_pairs
from maskrcnn_ext.data.check.images import THUMBNAIL_SIZE, make_thumbnail
from maskrcnn_ext.data.formats.image_files import IMAGE_ERRORS, IMAGE_SUFFIXES
from maskrcnn_ext.data.formats.records import ImageRecord
from maskrcnn_ext.data.images.pixels import read_pixels
from maskrcnn_ext.data.tools.split import split_images
from maskrcnn_ext.errors import InputError

_THREADS = 8
_DRAFT = 8 * THUMBNAIL_SIZE  # pixels that are enough of a JPEG, which can be decoded at an eighth of its size
_LARGE = 100_000_000  # pixels; larger images are not compared
_MIN_SEQUENCE = 0.6  # correlation from which images that follow each other belong to one volume or video


@dataclass(frozen=True)
class HeldOut:
    """A division of a data set.

    Attributes:
        train: the images to train on.
        val: the images to validate on.
        num_groups: number of groups that were not divided: one for each image that is similar to no other. 1 for a single sequence, whose
            end was held out.
    """

    train: list[ImageRecord]
    val: list[ImageRecord]
    num_groups: int


def hold_out(
    records: Sequence[ImageRecord],
    share: float,
    *,
    seed: int = 0,
    leave_out: Collection[int | str] = (),
    faults: dict[int | str, str] | None = None,
) -> HeldOut:
    """Divides images into a part for training and a part for validation, with the same share of each class.

    Images of one file, near duplicates and sequences, such as the slices of a volume or the frames of a video, get into the same part. If
    all images are one sequence, its end is held out.

    Args:
        records: the images.
        share: of the images to hold out, above 0 and below 1.
        seed: of the division.
        leave_out: ids of images that neither part gets, because they cannot be read.
        faults: gets a line for each other image whose pixels cannot be read, by its id. Neither part gets these.

    Raises:
        InputError: there is a single image.
    """
    faults = {} if faults is None else faults
    kept, groups = _group(records, leave_out, faults)
    if len(kept) < 2:
        why = f": {next(iter(faults.values()))}" if faults else ""
        raise InputError(f"{plural(len(kept), 'image')} can be read, so that none can be held out for validation{why}")
    num_groups = len(set(groups))
    if num_groups == 1:  # one volume, video or raster: the end is the least similar to the rest
        end = max(1, round((1 - share) * len(kept)))
        end = min(end, len(kept) - 1)
        return HeldOut(kept[:end], kept[end:], 1)
    try:
        parts = split_images(kept, groups, {"train": 1 - share, "val": share}, seed=seed, stratify=True)
    except InputError:  # too few groups for the share: the smallest one is held out
        held = _smallest(kept, groups)
        parts = {"train": [i for i, group in enumerate(groups) if group != held]}
        parts["val"] = [i for i, group in enumerate(groups) if group == held]
    return HeldOut([kept[index] for index in parts["train"]], [kept[index] for index in parts["val"]], num_groups)


def divide(
    records: Sequence[ImageRecord],
    folds: int,
    *,
    seed: int = 0,
    leave_out: Collection[int | str] = (),
    faults: dict[int | str, str] | None = None,
) -> list[list[ImageRecord]]:
    """Divides images into folds of about equal size, in the same way as :func:`hold_out`; a single sequence into its parts in order.

    Args:
        records: the images.
        folds: number of parts, 2 or more.
        seed: of the division.
        leave_out: ids of images that no part gets.
        faults: see :func:`hold_out`.

    Raises:
        InputError: there are fewer groups of similar images than folds.
    """
    kept, groups = _group(records, leave_out, {} if faults is None else faults)
    num_groups = len(set(groups))
    if num_groups == 1 and len(kept) >= folds:
        return [[kept[index] for index in part] for part in np.array_split(np.arange(len(kept)), folds)]
    names = [str(fold) for fold in range(folds)]
    try:
        parts = split_images(kept, groups, dict.fromkeys(names, 1 / folds), seed=seed, stratify=True)
    except InputError as error:  # a fold would be empty
        raise InputError(
            f"{folds} folds of {plural(num_groups, 'group')} of similar images: choose fewer folds"
        ) from error
    return [[kept[index] for index in parts[name]] for name in names]


def _smallest(records: Sequence[ImageRecord], groups: Sequence[str]) -> str:
    """Returns the group with the fewest images, the last of several, but not the only one with objects."""
    labelled = {group for record, group in zip(records, groups, strict=True) if record.annotations}
    return min(reversed(groups), key=lambda group: (labelled == {group}, groups.count(group)))


def _group(
    records: Sequence[ImageRecord], leave_out: Collection[int | str], faults: dict[int | str, str]
) -> tuple[list[ImageRecord], list[str]]:
    """Returns the images that can be read, in the natural order of their files, and their groups; adds a line for each other one."""
    kept = [record for record in records if record.image_id not in leave_out]
    kept.sort(key=lambda record: natural_sort_key(record.file_name))
    groups = group_similar(kept, faults)
    pairs = [(record, group) for record, group in zip(kept, groups, strict=True) if record.image_id not in faults]
    return [record for record, _ in pairs], [group for _, group in pairs]


def find_broken(records: Sequence[ImageRecord]) -> dict[int | str, str]:
    """Returns a line for each image whose pixels cannot be read, by its id. Very large images, and most tiles of a file, are not read.

    Example:
        >>> _ = (tmp_path / "a.jpg").write_bytes(b"no image")
        >>> list(find_broken([ImageRecord(str(tmp_path / "a.jpg"), 7, 10, 10)]))
        [7]
    """
    faults: dict[int | str, str] = {}
    _read_thumbnails([records[index] for index in _to_read(records)], faults)
    return faults


def group_similar(records: Sequence[ImageRecord], faults: dict[int | str, str] | None = None) -> list[str]:
    """Returns the group of each image: images of the same file, near duplicates, and sequences have the same group.

    Args:
        records: in the natural order of their files.
        faults: gets a line for each image whose pixels cannot be read, by its id.
    """
    parent = list(range(len(records)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    def join(one: int, other: int) -> None:
        low, high = sorted((root(one), root(other)))
        parent[high] = low

    for indices in _by_file(records):
        for index in indices:
            join(indices[0], index)
    shown = _to_read(records)
    thumbnails = _read_thumbnails([records[index] for index in shown], {} if faults is None else faults)
    for later, earlier, _ in find_near_pairs(thumbnails, 0):
        join(shown[later], shown[earlier])
    for index in np.flatnonzero(correlate_neighbours(thumbnails) > _MIN_SEQUENCE).tolist():
        join(shown[index], shown[index + 1])
    return [str(records[root(index)].image_id) for index in range(len(records))]


def _by_file(records: Sequence[ImageRecord]) -> list[list[int]]:
    """Returns the indices of the records of each file."""
    of_file: dict[str, list[int]] = {}
    for index, record in enumerate(records):
        of_file.setdefault(record.file_name, []).append(index)
    return list(of_file.values())


def _to_read(records: Sequence[ImageRecord]) -> list[int]:
    """Returns the indices of the records, and of the tiles of a file the middle one: each may need the whole file to be decoded."""
    found = []
    for indices in _by_file(records):
        are_tiles = "window" in records[indices[0]].extra
        found += [indices[len(indices) // 2]] if are_tiles else indices
    return found


def _read_thumbnails(records: Sequence[ImageRecord], faults: dict[int | str, str]) -> np.ndarray:
    """Returns thumbnails (N, side, side), float32; blank ones, which are similar to none, of images that are large or cannot be read."""

    def read(record: ImageRecord) -> np.ndarray:
        try:
            return _thumbnail(record)
        except (InputError, *IMAGE_ERRORS) as error:
            text = str(error)
            faults[record.image_id] = text if record.file_name in text else f"{record.file_name}: {text}"
            return np.zeros((THUMBNAIL_SIZE, THUMBNAIL_SIZE), np.float32)

    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(track(pool.map(read, records), description="comparing images", total=len(records)))
    return np.stack(found) if found else np.zeros((0, THUMBNAIL_SIZE, THUMBNAIL_SIZE), np.float32)


def _thumbnail(record: ImageRecord) -> np.ndarray:
    if record.height * record.width > _LARGE:
        return np.zeros((THUMBNAIL_SIZE, THUMBNAIL_SIZE), np.float32)
    if not record.extra and record.file_name.lower().endswith(IMAGE_SUFFIXES):
        with suppress(*IMAGE_ERRORS), Image.open(record.file_name) as image:  # channels that Pillow does not know
            image.draft("L", (_DRAFT, _DRAFT))
            return make_thumbnail(image)
    pixels = read_pixels({"file_name": record.file_name, **record.extra}, "raw")
    return make_thumbnail(Image.fromarray(pixels.mean(axis=2, dtype=np.float32)))
