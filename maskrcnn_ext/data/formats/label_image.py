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
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from struct import unpack
from typing import Any

import numpy as np
from PIL import Image

from maskrcnn_ext.common.extras import require
from maskrcnn_ext.common.text import plural, short_list
from maskrcnn_ext.data.formats import Format, Option
from maskrcnn_ext.data.formats.reading import (
    IMAGE_ERRORS,
    check_size,
    collected,
    image_size,
    in_threads,
    list_images,
    read_json,
    read_pixels,
    read_rows,
)
from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord, crowds_of_mask
from maskrcnn_ext.data.formats.volume import connected_parts, count_parts, warn_of_parts, whole_numbers
from maskrcnn_ext.data.formats.warnings import warn_of_unlabelled
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.rle import decode_rle, encode_labels, segmentation_to_rle

logger = logging.getLogger(__name__)

_MAX_COLOURS = 4096  # of a label image; a photograph has more
_LEVELS = 8  # values in several parts from which the edges of a black and white mask were smoothed
_WHITE = 255
_WHITES = (_WHITE, 0xFFFFFF)  # grey and colour
_IMAGE_ENDING = "_img"  # of Cellpose's images
_FEW = 5  # masks that are read to see what their values mean
_CLASSES_TABLE = "_classes.csv"
_LOSSY = (6, 7)  # TIFF's numbers for the two kinds of JPEG


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
            images. Default: there are none. The default of ``categories`` is then the numbers themselves.
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
    written = labels.parent / "classes.json"
    kinds_of: dict[str, list[int]] = {}
    if classes is None and categories is None and written.is_file():
        classes, kinds_of = _read_classes(written)
    listed = labels / _CLASSES_TABLE
    if classes is None and categories is None and listed.is_file():
        categories = _read_categories(listed)
    if class_images is not None and categories is None:
        categories = _numbers_in(class_images, void)
        logger.warning(
            '%s: the classes are called by their numbers, %s; name them by @categories:{"%s":"NAME"}',
            class_images,
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
                return _parts(plane, kinds, file)
            objects = _instances(plane, kinds_of.get(file.name), instances == "value", in_parts, white, file)
            if kinds is not None and class_images is not None:
                _set_classes(objects, class_images / file.name, kinds, file, *plane.shape)
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


def are_two_valued(files: Sequence[Path]) -> bool:
    """Returns whether masks are binary, so that they do not separate objects: the first few have one value beside 0, or none.

    Args:
        files: the masks.
    """
    most = 0
    for file in files[:_FEW]:
        try:
            with Image.open(file) as mask:
                # Values of 16 bits are numbers of objects.
                found = mask.getcolors(maxcolors=2) if mask.mode in ("1", "L", "P", "RGB", "RGBA") else None
        except IMAGE_ERRORS:
            return False
        if found is None:
            return False
        most = max(most, len(found))
    return most == 2


def _pairs(labels: Path, images: Path, suffix: str, faults: list[str] | None) -> Iterator[tuple[Path, Path]]:
    if labels.is_file():
        yield labels, images
        return
    maps = {stem: path for stem, path in list_images(labels).items() if stem.endswith(suffix)}
    if not maps:
        raise InputError(f"{labels}: no label images *{suffix}.png or *{suffix}.tif here")
    photographs = list_images(images)
    named = {stem.removesuffix(_IMAGE_ENDING): file for stem, file in photographs.items()} | photographs
    image_of = {file: named.get(stem.removesuffix(suffix)) for stem, file in maps.items()}
    used = {*image_of, *image_of.values()}
    warn_of_unlabelled([file for file in photographs.values() if file not in used], images)
    for stem, file in maps.items():
        image = image_of[file]
        if image is not None:
            yield file, image
            continue
        with collected(faults):
            advice = "" if suffix else "; @suffix:TEXT names what follows the name of the image"
            raise InputError(f"{file}: no image {stem.removesuffix(suffix)}.* in {images}{advice}")


def _read_classes(file: Path) -> tuple[list[str], dict[str, list[int]]]:
    """Returns the class names, and by label image the class index of each of its objects."""
    data = read_json(file)
    try:
        names, objects = [str(name) for name in data["classes"]], data["objects"]
        if all(0 <= kind < len(names) for kinds in objects.values() for kind in kinds):
            return names, objects
    except (AttributeError, KeyError, TypeError):
        pass
    raise InputError(f'{file}: expected {{"classes": [names], "objects": {{"<label image>": [index of a name, ...]}}}}')


def _read_categories(file: Path) -> dict[int, str]:
    """Returns the class names of numbers in a table of Roboflow: a row ``number, name`` for each, with 0 for the background."""
    try:
        names = {int(number): name.strip() for number, name in read_rows(file)[1:]}
    except ValueError:
        raise InputError(f"{file}: expected a number and a class name in each row below the first") from None
    return {number: name for number, name in names.items() if number}


def _numbers_in(class_images: Path, void: Sequence[int]) -> dict[int, str]:
    """Returns the numbers in all images of a folder as class names; {1: "1"} without any."""
    files = list(list_images(class_images).values())
    found = {
        int(value) for numbers in in_threads(lambda file: np.unique(_read_numbers(file)), files) for value in numbers
    }
    return {value: str(value) for value in sorted(found - {0, *void}) or [1]}


def _set_classes(
    objects: list[Annotation], classes: Path, kinds: Mapping[int, int], file: Path, height: int, width: int
) -> None:
    """Sets the class of each object of a label image: that of most of its pixels in the image of the classes."""
    numbers = check_size(_read_numbers(classes), classes, height, width)
    for found in objects:
        mask = decode_rle(segmentation_to_rle(found.segmentation, height, width)) > 0
        counts = Counter(numbers[mask].tolist()).most_common()
        number = next((number for number, _ in counts if number in kinds), None)
        if number is None:
            where = f"{file}: object {found.id} at {found.box[:2]}"
            raise InputError(f"{where} has the number {counts[0][0]} in {classes}, which `categories` does not name")
        found.category = kinds[number]


def _read_pair(
    file: Path,
    image: Path,
    ignore: Sequence[int],
    void: Sequence[int],
    num_classes: int,
    annotations: Callable[[np.ndarray], list[Annotation]],
) -> list[ImageRecord]:
    numbers = _read_numbers(file, ignore)
    stack = _is_tiff(file) and numbers.ndim == 3
    if numbers.ndim != 2 and not stack:
        raise InputError(f"{file}: a label image is (H, W), as TIFF also (Z, H, W); this one is {numbers.shape}")
    found = _tiff_shape(image, str(file)) if _is_tiff(image) else image_size(image, str(file))
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


def _read_numbers(file: Path, ignore: Sequence[int] = ()) -> np.ndarray:
    """Returns the numbers (H, W) or, in a stack, (Z, H, W) of a label image, those of `ignore` as 0."""
    numbers = _read_tiff(file) if _is_tiff(file) else read_pixels(file)
    if not _is_tiff(file) and numbers.ndim == 3:
        numbers = _colour_numbers(numbers, file)
    if ignore:
        numbers = np.where(np.isin(numbers, ignore), 0, numbers)
    return whole_numbers(numbers, file)


def _instances(
    labels: np.ndarray,
    kinds: Sequence[int] | None,
    per_value: bool,
    in_parts: list[str],
    white: list[str],
    file: Path,
) -> list[Annotation]:
    """Returns the objects, and adds the places of those in several parts to `in_parts`, of white ones beside others to `white`."""
    regions = encode_labels(labels)
    multiple = [region for region in regions if per_value and count_parts(labels, region) > 1]
    if len(multiple) > max(_LEVELS, len(regions) / 2) and max(region.value for region in regions) == _WHITE:
        raise InputError(
            f"{file}: has {len(regions)} values up to {_WHITE}, most of them in several unconnected parts: its edges were smoothed, as "
            "by JPEG or resizing; save it with one value an object, or name the classes by `categories` if the values are classes"
        )
    if kinds is not None and regions and max(value for value, _, _ in regions) > len(kinds):
        raise InputError(f"{file}: has a number above {len(kinds)}, the number of its objects in classes.json")
    values = {region.value for region in regions}
    white += [
        f"number {value} of {file}"
        for value in values
        if value in _WHITES and len(values) > 1 and value - 1 not in values
    ]
    in_parts += [f"number {region.value} of {file}" for region in multiple]
    annotations = []
    for region in regions:
        category = kinds[region.value - 1] if kinds else 0
        if per_value:
            annotations.append(Annotation(category, region.box, region.rle, id=region.value))
        else:
            annotations += [Annotation(category, part.box, part.rle) for part in connected_parts(labels, region.value)]
    return annotations


def _parts(labels: np.ndarray, kinds: Mapping[int, int], file: Path) -> list[Annotation]:
    """Returns every connected component (of 8 neighbours) as an object of the class of its value."""
    annotations = []
    for value in np.unique(labels[labels != 0]).tolist():
        if value not in kinds:
            advice = f"; add @void:{value} if it marks borders or unlabelled pixels" if value in _WHITES else ""
            raise InputError(f"{file}: number {value} is neither in `categories` nor in `ignore`{advice}")
        annotations += [Annotation(kinds[value], part.box, part.rle) for part in connected_parts(labels, value)]
    return annotations


def _colour_numbers(pixels: np.ndarray, file: Path) -> np.ndarray:
    """Returns the number of each pixel of a colour label image (..., channels): red + 256 green + 65536 blue; 0 if it is transparent.

    Raises:
        InputError: the values have more than 8 bits, or there are too many colours.
    """
    if pixels.dtype != np.uint8:
        raise InputError(f"{file}: a colour label image has 8 bits a channel, this one is {pixels.dtype}")
    channels = pixels.shape[-1]
    colours = pixels[..., : 3 if channels > 2 else 1].astype(np.int32)
    is_grey = (colours == colours[..., :1]).all()
    numbers = colours[..., 0] if is_grey else colours @ np.array([1, 1 << 8, 1 << 16], np.int32)
    if channels in (2, 4):
        numbers = np.where(pixels[..., -1] > 0, numbers, 0)
    count = len(np.unique(numbers))
    if count > _MAX_COLOURS:
        raise InputError(
            f"{file}: has {count} colours, so it is a photograph or its edges were smoothed; save it with one plain colour an object"
        )
    return numbers


def _is_tiff(file: Path) -> bool:
    return file.suffix.lower() in (".tif", ".tiff")


def _read_tiff(file: Path) -> np.ndarray:
    tifffile = _import_tifffile(file)
    try:
        with tifffile.TiffFile(file) as tiff:
            axes: str = tiff.series[0].axes
            pixels: np.ndarray = tiff.asarray()
            whole = _is_last(tiff, tiff.pages[-1])
            lossy = tiff.pages[0].compression in _LOSSY
    except Exception as error:  # damaged files raise anything from KeyError to zlib.error
        raise InputError(f"{file}: not a readable TIFF ({type(error).__name__}: {error})") from error
    if not whole:
        raise InputError(f"{file}: truncated, pages are missing at its end")
    if lossy:
        raise InputError(
            f"{file}: JPEG does not keep the numbers of a label image; save it with deflate or uncompressed"
        )
    if axes.endswith("S"):
        pixels = _colour_numbers(pixels, file)
    while pixels.ndim > 2 and pixels.shape[0] == 1:
        pixels = pixels[0]
    return pixels


def _is_last(tiff: Any, page: Any) -> bool:
    """Returns whether no page follows: the offset of the next page, after the tags, is 0. tifffile stops at a broken page."""
    layout, file = tiff.tiff, tiff.filehandle
    file.seek(page.offset)
    (tags,) = unpack(layout.tagnoformat, file.read(layout.tagnosize))
    file.seek(page.offset + layout.tagnosize + tags * layout.tagsize)
    return bool(file.read(layout.offsetsize) == bytes(layout.offsetsize))


def _tiff_shape(file: Path, where: str) -> tuple[int, ...]:
    """Returns the shape of a TIFF's first series, slices first, from its header."""
    tifffile = _import_tifffile(file)
    try:
        with tifffile.TiffFile(file) as tiff:
            return tuple(tiff.series[0].shape)
    except Exception as error:
        raise InputError(f"{where}: cannot read image {file} ({type(error).__name__}: {error})") from error


def _import_tifffile(file: Path) -> Any:
    return require("tifffile", extra="tiff", purpose=f"{file}: reading TIFF")


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
