"""The classes of label images: in a JSON or a table of the folder, or in other images of the same names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from maskrcnn_ext.data.formats.image_files import check_size
from maskrcnn_ext.data.formats.label_numbers import read_numbers
from maskrcnn_ext.data.formats.reading_many import in_threads
from maskrcnn_ext.data.formats.records import Annotation
from maskrcnn_ext.data.formats.text_files import read_json, read_rows
from maskrcnn_ext.data.formats.volume import connected_parts
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.rle import decode_rle, rle_area, segmentation_to_rle

CLASSES_FILE = "classes.json"  # beside the folder of the label images
CLASSES_TABLE = "_classes.csv"  # in it
_FEW = 10  # label images that are read to see what their numbers mean
_MOST_CLASSES = 50
_SPECK = 0.1  # share of the largest part of a number below which another part is no object
_WHITE = 255
_MOST_BELOW_WHITE = 8  # classes beside white; the edges of black and white masks that were smoothed have more values


def read_classes(file: Path) -> tuple[list[str], dict[str, list[int]]]:
    """Reads ``classes.json``; returns the class names, and by label image the class index of each of its objects.

    Raises:
        InputError: the file has another form.
    """
    data = read_json(file)
    try:
        names, objects = [str(name) for name in data["classes"]], data["objects"]
        if all(0 <= kind < len(names) for kinds in objects.values() for kind in kinds):
            return names, objects
    except (AttributeError, KeyError, TypeError):
        pass
    raise InputError(f'{file}: expected {{"classes": [names], "objects": {{"<label image>": [index of a name, ...]}}}}')


def read_categories(file: Path) -> dict[int, str]:
    """Returns the class names of numbers in a table of Roboflow: a row ``number, name`` for each, with 0 for the background."""
    try:
        names = {int(number): name.strip() for number, name in read_rows(file)[1:]}
    except ValueError:
        raise InputError(f"{file}: expected a number and a class name in each row below the first") from None
    return {number: name for number, name in names.items() if number}


def are_classes(files: Sequence[Path]) -> bool:
    """Returns whether the numbers of label images are classes: most of those in the first images are in several parts.

    The number of an object is that of one connected component, with few exceptions, and specks.
    """
    found = [is_scattered for file in files[:_FEW] for is_scattered in _are_scattered(file)]
    return 2 * sum(found) > len(found)


def _are_scattered(file: Path) -> list[bool]:
    """Returns whether each number in a label image is in several parts; nothing if it has more numbers than classes are likely."""
    try:
        labels = read_numbers(file)
    except InputError:  # the reader reports it
        return []
    values = np.unique(labels[labels != 0])
    most = _MOST_BELOW_WHITE + 1 if _WHITE in values else _MOST_CLASSES
    if labels.ndim != 2 or len(values) > most:
        return []
    areas = [sorted(rle_area(part.rle) for part in connected_parts(labels, value)) for value in values]
    return [len(parts) > 1 and parts[-2] >= _SPECK * parts[-1] for parts in areas]


def numbers_in(files: Sequence[Path], void: Sequence[int], faults: list[str] | None = None) -> dict[int, str]:
    """Returns the numbers in images as class names; {1: "1"} without any. `faults` gets those of images; None to raise the first."""
    read = in_threads(lambda file: np.unique(read_numbers(file)), files, faults)
    found = {int(value) for numbers in read for value in numbers}
    return {value: str(value) for value in sorted(found - {0, *void}) or [1]}


def set_classes(
    objects: list[Annotation], classes: Path, kinds: Mapping[int, int], file: Path, height: int, width: int
) -> None:
    """Sets the class of each object of a label image: that of most of its pixels in the image of the classes.

    Args:
        objects: of the label image.
        classes: the image of the classes.
        kinds: the class index of each number.
        file: the label image, for messages.
        height: of both in pixels.
        width: of both in pixels.

    Raises:
        InputError: the image of the classes is unreadable or of another size, or has no number of `kinds` at an object.
    """
    numbers = check_size(read_numbers(classes), classes, height, width)
    for found in objects:
        mask = decode_rle(segmentation_to_rle(found.segmentation, height, width)) > 0
        counts = Counter(numbers[mask].tolist()).most_common()
        number = next((number for number, _ in counts if number in kinds), None)
        if number is None:
            where = f"{file}: object {found.id} at {found.box[:2]}"
            raise InputError(f"{where} has the number {counts[0][0]} in {classes}, which `categories` does not name")
        found.category = kinds[number]
