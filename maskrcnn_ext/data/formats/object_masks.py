"""Reads masks that have files of their own: one an object, or one a class with all of its objects. Folders are classes.

``masks/a_1.png``, ``masks/a_instance_2.png`` and ``masks/a/3.png`` are each an object of the image ``a``, and ``masks/cat/a.png`` holds
its cats. A mask is 0 outside of its objects.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from maskrcnn_ext.common.text import plural
from maskrcnn_ext.data.formats import Format, Option
from maskrcnn_ext.data.formats.checked_values import category_of
from maskrcnn_ext.data.formats.dsb2018 import read_mask
from maskrcnn_ext.data.formats.file_names import list_files, list_images
from maskrcnn_ext.data.formats.image_files import image_size, is_image
from maskrcnn_ext.data.formats.label_numbers import are_two_valued
from maskrcnn_ext.data.formats.reading_many import collected, in_threads
from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord
from maskrcnn_ext.data.formats.volume import connected_parts
from maskrcnn_ext.data.formats.warnings import warn_of_unlabelled
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.rle import encode_labels

logger = logging.getLogger(__name__)

_ONE_CLASS = "object"
_WHITE = 255
_NUMBERED = re.compile(r"[ _.(-].*\d\)?")  # what follows the image's name in that of the mask of an object


def read_object_masks(
    masks: Path, images: Path, *, classes: Sequence[str] | None = None, faults: list[str] | None = None
) -> DataSet:
    """Reads masks of objects or of classes.

    Args:
        masks: the folder of the masks, or of a folder for each class or image.
        images: the folder of the images.
        classes: class names. Default: the names of the folders, sorted, or "object" without any.
        faults: gets the faults of images and masks, which are left out; None to raise the first.

    Returns:
        One record per image that has a mask, sorted by name. A mask that has the name of its image and one value holds an object in each
        connected component; with several values, each is an object. Masks without a pixel are left out, with one warning for all.

    Raises:
        InputError: there is no mask, or one has no image, is unreadable, of another size than its image, or of an unknown class.
    """
    photographs = list_images(images)
    of_image: dict[str, list[tuple[Path, str, bool]]] = {}
    for file in _list_masks(masks):
        with collected(faults):
            found = _match(file.relative_to(masks), photographs)
            if found is None:
                raise InputError(
                    f"{file}: no image in {images} has its name, or the beginning of its name before a number"
                )
            stem, label, is_whole = found
            of_image.setdefault(stem, []).append((file, label, is_whole))
    if not of_image:
        raise InputError(f"{masks}: no masks here")
    names = list(classes or sorted({label for entries in of_image.values() for _, label, _ in entries}))
    warn_of_unlabelled([file for stem, file in photographs.items() if stem not in of_image], images)
    empty: list[Path] = []

    def read(stem: str) -> ImageRecord:
        image = photographs[stem]
        height, width = image_size(image, str(image))
        record = ImageRecord(str(image), stem, height, width)
        for file, label, is_whole in of_image[stem]:
            with collected(faults):
                objects = _objects(file, height, width, category_of(label, names, str(file)), is_whole)
                record.annotations += objects
                if not objects:
                    empty.append(file)
        return record

    records = in_threads(read, sorted(of_image), faults)
    if empty:
        logger.warning("%s: left out %s without a pixel, such as %s", masks, plural(len(empty), "mask"), min(empty))
    return DataSet(names, records)


def are_object_masks(masks: Path, images: Path) -> bool:
    """Returns whether the masks in and below a folder are of objects or of classes, and not label images."""
    stems = {file.stem for file in list_files(images, "*")}
    below = {folder.name for folder in list_files(images, "*") if folder.is_dir()}
    files = [file.relative_to(masks) for file in _list_masks(masks)]
    if below & {file.parts[0] for file in files}:  # of splits
        return False
    if any(_match(file, stems) is None for file in files):
        return False
    if not {file.stem for file in files} <= stems:
        return True
    # Folders of numbers may be anything, such as trimaps.
    return any(len(file.parts) > 1 for file in files) and are_two_valued([masks / file for file in files])


def _list_masks(masks: Path) -> list[Path]:
    return [file for file in list_files(masks, "**/*") if is_image(file)]


def _match(mask: Path, stems: Collection[str]) -> tuple[str, str, bool] | None:
    """Returns the stem of the image of a mask, its class, and whether it holds all objects of the class; None if it has no image."""
    folders = mask.parts[:-1]
    if mask.stem in stems:
        return mask.stem, "/".join(folders) or _ONE_CLASS, True
    image = next((folder for folder in folders if folder in stems), None)
    image = image or image_of_object(mask.stem, stems)
    if image is None:
        return None
    return image, "/".join(folder for folder in folders if folder != image) or _ONE_CLASS, False


def image_of_object(mask: str, stems: Collection[str]) -> str | None:
    """Returns the longest stem of an image before a number in the stem of a mask, as `a` in `a_instance_1`; None without any.

    Example:
        >>> image_of_object("a_1_2", {"a", "a_1"})
        'a_1'
    """
    starts = (mask[:end] for end in range(len(mask) - 1, 0, -1))
    return next((start for start in starts if start in stems and _NUMBERED.fullmatch(mask[len(start) :])), None)


def _objects(file: Path, height: int, width: int, category: int, is_whole: bool) -> list[Annotation]:
    mask = read_mask(file, height, width)
    regions = encode_labels(mask if is_whole else (mask > 0).astype(np.uint8))
    if len(regions) > 1 and max(region.value for region in regions) == _WHITE:
        raise InputError(
            f"{file}: has {len(regions)} values up to {_WHITE}, as of smoothed edges; save it in black and white, or number its objects"
        )
    if is_whole and len(regions) == 1:
        regions = connected_parts(mask, regions[0].value)
    return [Annotation(category, region.box, region.rle) for region in regions]


FORMAT = Format(
    name="object_masks",
    description="One file for each mask, of an object or of a class; folders are classes",
    read=read_object_masks,
    options=(
        Option("masks", "the masks, or a folder of them for each class or image", "folder", required=True),
        Option("images", "the images", "folder", required=True),
    ),
    shorthand=("masks", "images"),
    lists_faults=True,
)
