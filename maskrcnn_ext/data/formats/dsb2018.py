"""Data Science Bowl 2018 (BBBC038): ``<root>/<image id>/images/<image id>.png`` and one mask PNG per object in ``<image id>/masks/``.

A mask is 0 outside the object and anything else inside it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from maskrcnn_ext.common.text import plural
from maskrcnn_ext.data.formats import Format, Option
from maskrcnn_ext.data.formats.file_names import list_files
from maskrcnn_ext.data.formats.image_files import image_size, read_pixels
from maskrcnn_ext.data.formats.reading_many import in_threads
from maskrcnn_ext.data.formats.records import DataSet, ImageRecord, annotation_of_mask
from maskrcnn_ext.errors import InputError

logger = logging.getLogger(__name__)


def read_dsb2018(
    images: Path,
    *,
    classes: Sequence[str] | None = None,
    split: Callable[[list[str]], list[str]] | None = None,
    faults: list[str] | None = None,
) -> DataSet:
    """Reads mask folders.

    Args:
        images: the folder of the image folders, such as ``stage1_train``.
        classes: the name of the one class; "object" when not given.
        split: picks image ids out of all ids, sorted; all when not given.
        faults: gets the faults of images, which are left out; None to raise the first.

    Returns:
        One record per image, in the order of the ids; segmentations are RLEs of the whole image. Masks without a pixel are left out, with
        one warning for all.

    Raises:
        InputError: no image folders, none with masks, an image or mask that is missing, unreadable or of another size than its image;
            more than one class.
    """
    names = list(classes or ("object",))
    if len(names) != 1:
        raise InputError(f"{images}: mask folders have one class, so `classes` must be one name, not {names}")
    ids = list_ids(images)
    folders = [images / name for name in (split(ids) if split else ids)]
    if not any((folder / "masks").is_dir() for folder in folders):
        raise InputError(f"{images}: no <image id>/images/*.png with <image id>/masks/*.png here")
    found = in_threads(_read_image, folders, faults)
    left_out = [file for _, empty in found for file in empty]
    if left_out:
        logger.warning(
            "%s: left out %s without a pixel, such as %s", images, plural(len(left_out), "mask"), left_out[0]
        )
    return DataSet(names, [record for record, _ in found])


def list_ids(images: Path) -> list[str]:
    """Returns the image ids (folder names) below a mask-folder data set, sorted."""
    return [path.name for path in list_files(images, "*") if (path / "images").is_dir()]


def read_mask(file: Path, height: int, width: int) -> np.ndarray:
    """Returns the values (H, W) of a mask, in colour the largest of the channels, which must have the size of its image."""
    mask = read_pixels(file)
    if mask.shape[:2] != (height, width):
        raise InputError(f"{file}: mask is {mask.shape[1]} x {mask.shape[0]}, its image {width} x {height}")
    if mask.ndim == 3:  # grey or RGB, with or without opacity
        mask = mask[..., : 3 if mask.shape[2] > 2 else 1].max(axis=2)
    return mask


def _read_image(folder: Path) -> tuple[ImageRecord, list[Path]]:
    """Returns the record and the masks that have no pixel."""
    files = list_files(folder / "images", "*.png")
    if len(files) != 1:
        raise InputError(f"{folder}/images: expected one PNG, found {len(files)}")
    height, width = image_size(files[0], str(folder))
    record = ImageRecord(str(files[0]), folder.name, height, width)
    empty = []
    for file in list_files(folder / "masks", "*.png"):
        mask = read_mask(file, height, width)
        if mask.any():
            record.annotations.append(annotation_of_mask(mask > 0, 0))
        else:
            empty.append(file)
    return record, empty


FORMAT = Format(
    name="dsb2018",
    description="Mask folders, as in the Data Science Bowl 2018",
    read=read_dsb2018,
    options=(
        Option("images", "the folder of the image folders, such as stage1_train", "folder", required=True),
        Option("split", "picks image ids out of all ids", "function"),
    ),
    shorthand=("images",),
    split_option="split",
    lists_faults=True,
)
