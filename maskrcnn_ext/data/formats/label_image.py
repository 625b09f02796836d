"""Reads label images: a PNG or TIFF of the image's size, in which the value of a pixel is the number of its object, or 0.

PNGs have 1 to 16 bits; the values of a palette image are its indices. In a colour image, each colour but black is an object, with the
number red + 256 green + 65536 blue. TIFFs hold a plane (H, W) or a stack (Z, H, W), as StarDist,
Cellpose and ImageJ write them, and may store the numbers as floats. The masks of Penn-Fudan (``PedMasks/*_mask.png``) are label images
with ``suffix="_mask"``. A file ``classes.json`` beside the folder of the label images, as ``maskrcnn-ext convert`` writes it, holds the
class of every object. A file ``_classes.csv`` in the folder, as Roboflow writes it, holds the class of every number. Other
images of the same names, as VOC's ``SegmentationClass`` beside ``SegmentationObject``, may hold the class of every pixel.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from maskrcnn_ext.common.text import plural, short_list
from maskrcnn_ext.data.formats import Format, Option
from maskrcnn_ext.data.formats.file_names import list_images
from maskrcnn_ext.data.formats.label_classes import (
    CLASSES_FILE,
    CLASSES_TABLE,
    numbers_in,
    read_categories,
    read_classes,
    set_classes,
)
from maskrcnn_ext.data.formats.label_numbers import image_shape, is_tiff, read_numbers
from maskrcnn_ext.data.formats.label_objects import objects_of_classes, objects_of_numbers
from maskrcnn_ext.data.formats.mask_names import without_kind
from maskrcnn_ext.data.formats.reading_many import collected, in_threads
from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord, crowds_of_mask
from maskrcnn_ext.data.formats.volume import warn_of_parts
from maskrcnn_ext.data.formats.warnings import warn_of_unlabelled
from maskrcnn_ext.errors import InputError

logger = logging.getLogger(__name__)

_IMAGE_ENDING = "_img"  # of Cellpose's images


def read_label_image(
    labels: Path,
    images: Path,
    *,
    classes: Sequence[str] | None = None,
    suffix: str = "",
    ignore: Sequence[int] = (),
    void: Sequence[int] = (),
    categories: Mapping[int, str] | None = None,
    class_images: Path | None = None,
    instances: str = "value",
    faults: list[str] | None = None,
) -> DataSet:
    """Reads label images.

    Args:
        labels: the folder of the label images, or one label image.
        images: the folder of the images, or the one image.
        classes: the name of the only class; with ``categories``, the class names in the order of the model. Default: the classes of
            ``classes.json`` or ``_classes.csv``, or "object".
        suffix: the text after the image's name in the name of its label image, such as "_mask".
        ignore: numbers that are not objects but background.
        void: numbers of unlabelled pixels, such as 255: they are ignore regions, stored as a crowd of each class.
        categories: the class name of each number, if numbers are classes. Each connected component is then an object. Default: those of
            ``_classes.csv``.
        class_images: the folder of images with the names of the label images, in which the value of a pixel is the number of its class:
            that of most pixels of an object is its class. ``categories`` then names these numbers, and objects are those of the label
            images. Default: no such images. The default of ``categories`` is then the numbers themselves.
        instances: "value" if all pixels of a number are one object; "component" if each connected component is one. A warning counts the
            objects of several unconnected parts.
        faults: gets the faults of label images, which are left out; None to raise the first.

    Returns:
        One record per label image, sorted by name, or per slice of a stack, with ``extra={"slice": z}`` and the id "<name>/<z>". A warning
        counts images with other numbers in which white (255) is an object: it usually is a border or the background.

    Raises:
        InputError: there are no label images; one is unreadable, has another size than its image, several channels or values that are
            not whole numbers; an image is missing; a number is not in ``categories``; ``classes`` has several names without ``categories``.
    """
    written = labels.parent / CLASSES_FILE
    kinds_of: dict[str, list[int]] = {}
    if classes is None and categories is None and written.is_file():
        classes, kinds_of = read_classes(written)
    listed = labels / CLASSES_TABLE
    if classes is None and categories is None and listed.is_file():
        categories = read_categories(listed)
    if class_images is not None and categories is None:
        categories = numbers_in(list(list_images(class_images).values()), void)
    if categories and all(str(number) == name for number, name in categories.items()):
        logger.warning(
            '%s: the classes are called by their numbers, %s; name them by @categories:{"%s":"NAME"}',
            class_images or labels,
            short_list(list(categories.values())),
            next(iter(categories)),
        )
    names = list(classes or (dict.fromkeys(categories.values()) if categories else ("object",)))
    if categories is None and not kinds_of and len(names) != 1:
        raise InputError(
            f"{labels}: `classes` must be one name, not {names}; if the numbers are classes, name them by `categories`"
        )
    if categories is not None and set(categories.values()) != set(names):
        raise InputError(f"{labels}: `classes` are {', '.join(names)}, `categories` {', '.join(categories.values())}")
    if instances not in ("value", "component"):
        raise InputError(f"{labels}: `instances` is {instances!r}, expected 'value' or 'component'")
    try:
        kinds = None if categories is None else {int(value): names.index(name) for value, name in categories.items()}
    except ValueError:
        raise InputError(f"{labels}: `categories` is {categories}, expected a class name for every number") from None
    in_parts: list[str] = []
    white: list[str] = []

    def read(pair: tuple[Path, Path]) -> list[ImageRecord]:
        file, image = pair

        def annotations(plane: np.ndarray) -> list[Annotation]:
            if kinds is not None and class_images is None:
                return objects_of_classes(plane, kinds, file)
            objects = objects_of_numbers(plane, kinds_of.get(file.name), instances == "value", in_parts, white, file)
            if kinds is not None and class_images is not None:
                set_classes(objects, class_images / file.name, kinds, file, *plane.shape)
            return objects

        return _read_pair(file, image, ignore, void, len(names), annotations)

    pairs = list(_pairs(labels, images, suffix, faults))
    records = [record for of_file in in_threads(read, pairs, faults) for record in of_file]
    if class_images is None:
        warn_of_parts(sorted(in_parts), sum(len(record.annotations) for record in records), labels, "categories")
    if white:
        number = min(white).split()[1]
        logger.warning(
            "%s: white is an object in %s, such as %s; add @void:%s to the string of the data set if it marks borders or unlabelled "
            "pixels, or @ignore:%s if it is the background",
            labels,
            plural(len(white), "label image"),
            min(white),
            number,
            number,
        )
    return DataSet(names, records)


def _pairs(labels: Path, images: Path, suffix: str, faults: list[str] | None) -> Iterator[tuple[Path, Path]]:
    if labels.is_file():
        yield labels, images
        return
    maps = {stem: path for stem, path in list_images(labels).items() if stem.endswith(suffix)}
    if not maps:
        raise InputError(f"{labels}: no label images *{suffix}.png or *{suffix}.tif here")
    photographs = list_images(images)
    named = {stem.removesuffix(_IMAGE_ENDING): file for stem, file in photographs.items()} | photographs
    names = {stem.removesuffix(suffix): file for stem, file in maps.items()}
    similar = {} if labels == images else _pairs_by_other_words(names, photographs)
    image_of = {file: named.get(name, similar.get(name)) for name, file in names.items()}
    used = {*image_of, *image_of.values()}
    warn_of_unlabelled([file for file in photographs.values() if file not in used], images)
    for stem, file in maps.items():
        image = image_of[file]
        if image is not None:
            yield file, image
            continue
        with collected(faults):
            advice = "" if suffix else "; name masks like their images, or what follows in their names by @suffix:TEXT"
            raise InputError(f"{file}: no image {stem.removesuffix(suffix)}.* in {images}{advice}")


def _pairs_by_other_words(masks: Iterable[str], photographs: Mapping[str, Path]) -> dict[str, Path]:
    """Returns the images of masks whose names differ from theirs in a word such as "mask" alone, and of no two of either."""
    masks_with, images_with = (Counter(map(without_kind, names)) for names in (masks, photographs))
    image_with = {without_kind(name): file for name, file in photographs.items()}
    rests = {name: without_kind(name) for name in masks}
    return {
        name: image_with[rest] for name, rest in rests.items() if rest and masks_with[rest] == images_with[rest] == 1
    }


def _read_pair(
    file: Path,
    image: Path,
    ignore: Sequence[int],
    void: Sequence[int],
    num_classes: int,
    annotations: Callable[[np.ndarray], list[Annotation]],
) -> list[ImageRecord]:
    numbers = read_numbers(file, ignore)
    stack = is_tiff(file) and numbers.ndim == 3
    if numbers.ndim != 2 and not stack:
        raise InputError(f"{file}: a label image is (H, W), as TIFF also (Z, H, W); this one is {numbers.shape}")
    found = image_shape(image, str(file))
    # Images may have channels, last or first, and so may the slices of a stack.
    z = numbers.ndim - 2
    if numbers.shape not in ((found[: z + 2], found[:z] + found[-2:]) if len(found) == z + 3 else (found,)):
        raise InputError(f"{file}: label image is {numbers.shape}, its image {image} {found} ((slices,) height, width)")
    height, width = numbers.shape[-2:]
    records = []
    for z, plane in enumerate(numbers if stack else numbers[None]):
        record = ImageRecord(str(image), f"{image.stem}/{z}" if stack else image.stem, height, width)
        if stack:
            record.extra["slice"] = z
        unlabelled = np.isin(plane, void)
        record.annotations = annotations(np.where(unlabelled, 0, plane))
        record.annotations += crowds_of_mask(unlabelled, num_classes)
        records.append(record)
    return records


FORMAT = Format(
    name="label_image",
    description="Label images: the value of a pixel is the number of its object or class",
    read=read_label_image,
    options=(
        Option("labels", "the label images, or one of them", "path", required=True),
        Option("images", "the images, or the one image", "path", required=True),
        Option("suffix", "what follows the image's name in the name of its label image, such as _mask", "text"),
        Option("ignore", "numbers that are no objects but background", "numbers"),
        Option("void", "numbers of unlabelled pixels, such as 255: ignore regions", "numbers"),
        Option("categories", "the class name of every number, if the numbers are classes", "names"),
        Option(
            "class_images", "images whose values are the classes of the pixels, such as SegmentationClass", "folder"
        ),
        Option("instances", '"value" or "component": what counts as one object', "text"),
    ),
    shorthand=("labels", "images"),
    lists_faults=True,
)
