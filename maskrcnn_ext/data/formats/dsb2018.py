"""Data Science Bowl 2018 (BBBC038): ``<root>/<image id>/images/<image id>.png`` and one mask PNG an object in ``<image id>/masks/``.

A mask is 0 outside the object and anything else inside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from maskrcnn_ext.data.formats.records import DataSet, ImageRecord, annotation_of_mask
from maskrcnn_ext.errors import InputError

# Decoding tens of thousands of small PNGs: OpenCV lets go of the interpreter lock, so that a few threads help.
_THREADS = 8


def read_dsb2018(
    images: Path, *, classes: Sequence[str] | None = None, split: Callable[[list[str]], list[str]] | None = None
) -> DataSet:
    """Reads mask folders.

    Args:
        images: the folder of the image folders, such as ``stage1_train``.
        classes: the name of the one class; "object" when not given.
        split: picks image ids out of all ids, sorted; all when not given.

    Returns:
        A record an image, in the order of the ids; segmentations are RLEs of the whole image.

    Raises:
        InputError: an image or mask is missing, unreadable, or its size differs from its image's; more than one class.
    """
    names = list(classes or ("object",))
    if len(names) != 1:
        raise InputError(
            f"{images}: mask folders do not tell classes apart, so `classes` must be one name, not {names}"
        )
    ids = list_ids(images)
    folders = [images / name for name in (split(ids) if split else ids)]
    with ThreadPoolExecutor(_THREADS) as pool:
        return DataSet(names, list(pool.map(_read_image, folders)))


def list_ids(images: Path) -> list[str]:
    """Returns the image ids (folder names) below a mask-folder data set, sorted."""
    return sorted(path.name for path in images.iterdir() if (path / "images").is_dir())


def _read_image(folder: Path) -> ImageRecord:
    files = sorted((folder / "images").glob("*.png"))
    if len(files) != 1:
        raise InputError(f"{folder}/images: expected one PNG, found {len(files)}")
    height, width = _read(files[0]).shape[:2]
    record = ImageRecord(str(files[0]), folder.name, height, width)
    for file in sorted((folder / "masks").glob("*.png")):
        mask = _read(file)
        if mask.shape[:2] != (height, width):
            raise InputError(f"{file}: mask is {mask.shape[1]} x {mask.shape[0]}, its image {width} x {height}")
        inside = mask if mask.ndim == 2 else mask[..., :3].max(axis=2)
        if inside.any():
            record.annotations.append(annotation_of_mask(inside > 0, 0))
    return record


def _read(file: Path) -> np.ndarray:
    pixels = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise InputError(f"{file}: not a readable PNG (empty, truncated or another format)")
    return pixels
