"""Label maps of volumes: the classes of their values, the objects in a slice, and the comparison of grids."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from maskrcnn_ext.common.text import plural
from maskrcnn_ext.data.formats.records import Annotation
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.rle import LabelMask, encode_labels

logger = logging.getLogger(__name__)

_NAMED = 5  # numbers in a message

# In voxels; a label map with a larger offset would put outlines beside the objects.
_TOLERANCE = 0.1


@dataclass(frozen=True, slots=True)
class LabelTable:
    """Maps the values of label maps to classes.

    Attributes:
        names: the class names.
        categories: index into `names` by value, None to ignore a value. If empty, every value is of the only class.
        per_value: whether all pixels of a value in a slice are one object; otherwise each connected component is one.
        in_parts: the places of objects that consist of several unconnected parts.
    """

    names: list[str]
    categories: dict[int, int | None]
    per_value: bool
    in_parts: list[str] = field(default_factory=list)

    def category(self, value: int, where: str) -> int | None:
        """Returns the class index of a value, None to ignore it; raises InputError if the value has no class."""
        if not self.categories:
            return 0
        if value not in self.categories:
            known = ", ".join(map(str, self.categories))
            raise InputError(
                f"{where}: label value {value} has no class (those with one: {known}); add it to `values`, with null to ignore it"
            )
        return self.categories[value]

    def annotations(self, labels: np.ndarray, where: str) -> list[Annotation]:
        """Returns the objects in a slice (H, W) of a label map; 0 is the background."""
        found = []
        for region in encode_labels(labels):
            category = self.category(region.value, where)
            if category is None:
                continue
            pieces = [region]
            if not self.per_value:
                pieces = connected_parts(labels, region.value)
            elif count_parts(labels, region) > 1:
                self.in_parts.append(f"value {region.value} of {where}")
            found += [Annotation(category, piece.box, piece.rle, id=region.value) for piece in pieces]
        return found


def connected_parts(labels: np.ndarray, value: int) -> list[LabelMask]:
    """Returns the connected components (of 8 neighbours) of a value in a label image (H, W)."""
    return encode_labels(cv2.connectedComponents((labels == value).astype(np.uint8), connectivity=8)[1])


def count_parts(labels: np.ndarray, region: LabelMask) -> int:
    """Returns the number of connected components (of 8 neighbours) of a region of a label image (H, W)."""
    x0, y0, x1, y1 = (int(edge) for edge in region.box)
    inside = (labels[y0:y1, x0:x1] == region.value).astype(np.uint8)
    return int(cv2.connectedComponents(inside, connectivity=8)[0]) - 1


def warn_of_parts(places: Sequence[str], num_objects: int, source: Path, option: str) -> None:
    """Warns that objects consist of several unconnected parts, if any do: each part may be an object, and numbers may be classes.

    Args:
        places: of these objects, such as "number 3 of a.png".
        num_objects: number of all objects.
        source: the file or folder.
        option: that names the classes of numbers.
    """
    if places:
        numbers = sorted({int(place.split()[1]) for place in places})[:_NAMED]
        logger.warning(
            "%s: %d of %s of several unconnected parts, such as %s; add @instances:component to the string of the data set "
            '(or instances="component") if each part is an object, or @%s:{%s} if the numbers are classes',
            source,
            len(places),
            plural(num_objects, "object") + (" consists" if len(places) == 1 else " consist"),
            places[0],
            option,
            ",".join(f'"{number}":"NAME"' for number in numbers),
        )


def label_table(
    classes: Sequence[str] | None,
    values: Mapping[int, str | None] | None,
    instances: str,
    default: Sequence[str] = ("object",),
) -> LabelTable:
    """Returns the table that maps label values to classes.

    Args:
        classes: class names, or None.
        values: the class name of every label value, None to ignore a value. By default, value 1 is the first class, 2 the second, and so
            on; but with a single class and ``instances="value"``, every value is an object of that class.
        instances: "value" if all pixels of a value in a slice are one object, "component" if each connected component is one.
        default: class names if neither ``classes`` nor ``values`` is set.

    Raises:
        InputError: ``values`` has a class that ``classes`` lacks, or ``instances`` is unknown.

    Example:
        >>> label_table(["liver", "spleen"], None, "value").categories
        {1: 0, 2: 1}
    """
    if instances not in ("value", "component"):
        raise InputError(f"`instances` is {instances!r}, expected 'value' or 'component'")
    per_value = instances == "value"
    if values is None:
        names = list(classes or default)
        if len(names) == 1 and per_value:
            return LabelTable(names, {}, per_value)
        return LabelTable(names, {index + 1: index for index in range(len(names))}, per_value)
    try:
        named = {int(value): name for value, name in values.items()}
    except (TypeError, ValueError, AttributeError):
        raise InputError(f"`values` is {values!r}, expected a class name for every label value") from None
    names = list(classes or dict.fromkeys(name for name in named.values() if name is not None))
    for value, name in named.items():
        if name is not None and name not in names:
            raise InputError(f"`values` makes {value} a {name!r}, expected one of the classes {', '.join(names)}")
    categories = {value: None if name is None else names.index(name) for value, name in named.items()}
    if not names:
        raise InputError("`values` names no class")
    return LabelTable(names, categories, per_value)


def level_extra(level: Sequence[float] | None) -> dict[str, Any]:
    """Returns the entry ``level`` [center, width] of a record's ``extra``, the grey values to show; {} for None.

    Raises:
        InputError: `level` is not two numbers, or the width is not above 0.
    """
    if level is None:
        return {}
    try:
        center, width = (float(value) for value in level)
    except (TypeError, ValueError):
        raise InputError(f"`level` is {level!r}, expected (center, width)") from None
    if not width > 0:
        raise InputError(f"`level` has the width {width:g}, expected more than 0")
    return {"level": [center, width]}


def whole_numbers(labels: np.ndarray, file: Path) -> np.ndarray:
    """Returns label values as integers; many programs store them as floating-point numbers.

    Raises:
        InputError: a value is negative or not an integer, as in a probability map.
    """
    if labels.dtype.kind not in "iufb":
        raise InputError(f"{file}: label values of type {labels.dtype}, expected whole numbers")
    if labels.dtype.kind == "f":
        whole = (np.floor(labels) == labels) & (
            np.abs(labels) < 2**53
        )  # larger floats have gaps between integers; NaN fails both
        if not whole.all():
            raise InputError(
                f"{file}: label value {labels[~whole][0]} is not a whole number; is this an image or a probability map?"
            )
        labels = labels.astype(np.int32 if labels.size == 0 or np.abs(labels).max() < 2**31 else np.int64)
    if labels.dtype.kind == "i" and labels.size and labels.min() < 0:
        raise InputError(f"{file}: label value {labels.min()} is negative; is this an image rather than a label map?")
    return labels


def same_grid(shape: Sequence[int], first: np.ndarray, second: np.ndarray) -> bool:
    """Returns whether two affines (4, 4), from voxel to patient, map the corners of a volume to the same positions."""
    corners = np.array(
        [[i, j, k, 1] for i in (0, shape[0] - 1) for j in (0, shape[1] - 1) for k in (0, shape[2] - 1)]
    ).T
    distance = np.linalg.norm(((first - second) @ corners)[:3], axis=0).max()
    return bool(distance <= _TOLERANCE * np.linalg.norm(first[:3, :3], axis=0).min())


def pick_plane(
    volume: np.ndarray, axes: np.ndarray, origin: np.ndarray, plane: np.ndarray, height: int, width: int
) -> np.ndarray | None:
    """Returns the voxels of an image plane, for any order and direction of the volume's axes. Does not interpolate.

    Args:
        volume: (I, J, K).
        axes: (3, 3); column n is the step in space along axis n, in mm.
        origin: (3,), the position of voxel (0, 0, 0) in mm.
        plane: (3, 3); its columns are the steps to the next column and the next row, and the position of pixel (0, 0), in mm.
        height: of the image in pixels.
        width: of the image in pixels.

    Returns:
        (height, width); None if the pixels are not voxels of the volume.
    """
    steps = np.linalg.solve(axes, plane - np.stack([np.zeros(3), np.zeros(3), origin], axis=1))
    corners = steps @ np.array([[c, r, 1] for c in (0, width - 1) for r in (0, height - 1)]).T
    nearest = np.rint(corners)
    inside = (nearest >= 0) & (nearest < np.array(volume.shape)[:, None])
    if not inside.all() or np.abs(corners - nearest).max() > _TOLERANCE:
        return None
    right, down, start = np.rint(steps).astype(int).T
    # In a small image, voxels of another size than the pixels can still agree at the corners.
    if not np.allclose(steps[:, :2], np.rint(steps[:, :2]), atol=_TOLERANCE):
        return None
    rows, columns = np.arange(height)[:, None], np.arange(width)
    i, j, k = (start[n] + columns * right[n] + rows * down[n] for n in range(3))
    picked: np.ndarray = volume[i, j, k]
    return picked
