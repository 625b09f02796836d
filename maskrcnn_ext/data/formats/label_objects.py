"""The objects of a label image: the pixels of a number, or each connected component of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from maskrcnn_ext.data.formats.records import Annotation
from maskrcnn_ext.data.formats.volume import connected_parts, count_parts
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.rle import encode_labels

_LEVELS = 8  # values in several parts from which the edges of a black and white mask were smoothed
_WHITE = 255
WHITES = (_WHITE, 0xFFFFFF)  # grey and colour


def objects_of_numbers(
    labels: np.ndarray,
    kinds: Sequence[int] | None,
    per_value: bool,
    in_parts: list[str],
    white: list[str],
    file: Path,
) -> list[Annotation]:
    """Returns the objects of a label image whose values number them.

    Args:
        labels: (H, W) numbers, 0 for the background.
        kinds: the class index of each object, that of number 1 first; None if all have class 0.
        per_value: whether all pixels of a number are one object, instead of each connected component.
        in_parts: gets the places of objects in several parts.
        white: gets the places of white objects beside others.
        file: the label image, for messages.

    Raises:
        InputError: the edges of a black and white mask were smoothed, or a number has no class.
    """
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
        # In colour, 255 is red, below the numbers of green and blue.
        if value in WHITES and value == max(values) and len(values) > 1 and value - 1 not in values
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


def objects_of_classes(labels: np.ndarray, kinds: Mapping[int, int], file: Path) -> list[Annotation]:
    """Returns every connected component (of 8 neighbours) as an object of the class of its value.

    Args:
        labels: (H, W) numbers of classes, 0 for the background.
        kinds: the class index of each number.
        file: the label image, for messages.

    Raises:
        InputError: a number has no class.
    """
    annotations = []
    for value in np.unique(labels[labels != 0]).tolist():
        if value not in kinds:
            advice = f"; add @void:{value} if it marks borders or unlabelled pixels" if value in WHITES else ""
            raise InputError(f"{file}: number {value} is neither in `categories` nor in `ignore`{advice}")
        annotations += [Annotation(kinds[value], part.box, part.rle) for part in connected_parts(labels, value)]
    return annotations
