"""Joins the objects of neighbouring slices to objects of a volume: those whose masks overlap, class by class.

Each slice is matched with the one before it by the Hungarian method on the IoU of masks. An object that one slice misses ends there, and a
new one begins behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maskrcnn_ext.common.files import write_atomic
from maskrcnn_ext.common.tables import csv_table
from maskrcnn_ext.data.formats.records import DataSet, ImageRecord
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.inference.volumes import Volume, write_label_volume
from maskrcnn_ext.ops.rle import RLE, decode_rle, pairwise_iou, rle_area


@dataclass(frozen=True)
class SliceObject:
    """One object in a slice.

    Attributes:
        category: index of its class.
        score: its score.
        rle: its mask, a compressed RLE of the slice.
    """

    category: int
    score: float
    rle: RLE


def link_slices(slices: Sequence[Sequence[SliceObject]], least_iou: float) -> list[list[int]]:
    """Returns the number of the object of the volume, from 1, that each object of each slice belongs to.

    Args:
        slices: the objects of each slice.
        least_iou: smallest IoU of two masks of one object.

    Example:
        >>> found = SliceObject(0, 0.9, {"size": [2, 2], "counts": "22"})
        >>> link_slices([[found], [found], [], [found]], 0.5)
        [[1], [1], [], [2]]
    """
    from scipy.optimize import linear_sum_assignment  # half a second, which most predictions need not spend

    numbers: list[list[int]] = []
    count = 0
    for index, objects in enumerate(slices):
        found = [0] * len(objects)
        before = slices[index - 1] if index else []
        if before and objects:
            overlaps = pairwise_iou([one.rle for one in objects], [one.rle for one in before])
            overlaps *= np.equal.outer([one.category for one in objects], [one.category for one in before])
            overlaps[overlaps < least_iou] = 0
            for row, column in zip(*linear_sum_assignment(overlaps, maximize=True), strict=True):
                if overlaps[row, column] > 0:
                    found[row] = numbers[-1][column]
        for position, number in enumerate(found):
            if not number:
                count += 1
                found[position] = count
        numbers.append(found)
    return numbers


def stitch(data: DataSet, volumes: Sequence[Volume], folder: Path, least_iou: float) -> list[Path]:
    """Writes a label map of each volume, and a table of its objects.

    Args:
        data: the predictions, one record a slice, with the image ids of the volumes' items.
        volumes: the volumes.
        folder: gets ``<volume>.nii.gz`` or ``<volume>.tif``, and ``<volume>.csv``: number, class, mean score, voxels, first and last slice.
        least_iou: smallest IoU of two masks of one object.

    Returns:
        The label maps.

    Raises:
        InputError: the slices of a volume have different sizes, or none could be predicted.
    """
    records = {record.image_id: record for record in data.images}
    written = []
    for volume in volumes:
        known = [records.get(item.image_id) for item in volume.items]
        sizes = {(record.height, record.width) for record in known if record is not None}
        if not sizes:
            raise InputError(f"{volume.file}: none of its slices was predicted, see failed.txt")
        if len(sizes) > 1:
            raise InputError(f"{volume.file}: its slices have {len(sizes)} sizes, expected one")
        slices = [[] if record is None else _objects(record) for record in known]
        numbers = link_slices(slices, least_iou)
        labels = np.zeros((len(slices), *sizes.pop()), np.int32)
        for plane, objects, found in zip(labels, slices, numbers, strict=True):
            for one, number in zip(objects, found, strict=True):  # the highest score last, on top
                plane[decode_rle(one.rle) > 0] = number
        target = folder / volume.name
        target.parent.mkdir(parents=True, exist_ok=True)
        written.append(write_label_volume(labels, volume, target))
        table = csv_table(("object", "class", "score", "voxels", "first", "last"), _rows(slices, numbers, data.classes))
        write_atomic(target.parent / f"{target.name}.csv", table.encode("utf-8", "backslashreplace"))
    return written


def _objects(record: ImageRecord) -> list[SliceObject]:
    """Returns the objects of a slice that have a mask, the highest score last."""
    found = [
        SliceObject(one.category, one.score or 0.0, one.segmentation)
        for one in record.annotations
        if isinstance(one.segmentation, dict)
    ]
    return sorted(found, key=lambda one: one.score)


def _rows(
    slices: Sequence[Sequence[SliceObject]], numbers: list[list[int]], classes: Sequence[str]
) -> list[list[object]]:
    """Returns the row of each object, in the order of their numbers."""
    parts: dict[int, list[tuple[int, SliceObject]]] = {}
    for index, (objects, of_slice) in enumerate(zip(slices, numbers, strict=True)):
        for one, number in zip(objects, of_slice, strict=True):
            parts.setdefault(number, []).append((index, one))
    rows: list[list[object]] = []
    for number, found in sorted(parts.items()):
        voxels = sum(rle_area(one.rle) for _, one in found)
        score = sum(one.score for _, one in found) / len(found)
        rows.append([number, classes[found[0][1].category], round(score, 4), voxels, found[0][0], found[-1][0]])
    return rows
