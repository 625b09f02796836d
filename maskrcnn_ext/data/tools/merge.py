"""Merges data sets to one: the classes of all, and images that more than one has once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from maskrcnn_ext.common.text import plural
from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord
from maskrcnn_ext.data.registry.class_map import ClassMap
from maskrcnn_ext.errors import InputError

logger = logging.getLogger(__name__)


def merge(sets: Sequence[DataSet], class_map: ClassMap | None = None) -> DataSet:
    """Returns one data set of several.

    An image that several sets have, by its path or by a link to it, occurs once, with the objects of all. If two sets label the same class
    in it, the first counts for that class, with a warning. An image states the classes that it labels, if these are not all.

    Args:
        sets: the data sets.
        class_map: their classes; None for the classes of all, by name and in the order of their first occurrence.

    Raises:
        InputError: the map lacks a class, or the sets have different keypoints.

    Example:
        >>> one, two = DataSet(["a"], [ImageRecord("1.png", 1, 4, 4)]), DataSet(["b"], [ImageRecord("2.png", 1, 4, 4)])
        >>> merged = merge([one, two])
        >>> merged.classes, [image.labelled_classes for image in merged.images]
        (['a', 'b'], [[0], [1]])
    """
    if class_map is None:
        class_map = ClassMap("the classes", tuple(dict.fromkeys(name for data in sets for name in data.classes)), {})
    mapped = [class_map.apply(data) for data in sets]
    skeletons = [(data.keypoints, data.skeleton) for data in mapped if data.keypoints]
    if any(one[0] != skeletons[0][0] for one in skeletons):
        raise InputError("the data sets have different keypoints: merge those with equal ones")
    every = range(len(class_map.classes))
    merged: dict[tuple[str, str], ImageRecord] = {}
    twice = 0
    for record in (record for data in mapped for record in data.images):
        key = (str(Path(record.file_name).resolve()), repr(sorted(record.extra.items())))
        if key not in merged:
            merged[key] = record
            continue
        first = merged[key]
        known = set(every if first.labelled_classes is None else first.labelled_classes)
        own = set(every if record.labelled_classes is None else record.labelled_classes)
        twice += bool(known & own)
        # A crowd is an ignore region, wherever it comes from.
        crowds = {_region(found) for found in first.annotations if found.crowd}
        added = [
            found
            for found in record.annotations
            if found.category not in known or (found.crowd and _region(found) not in crowds)
        ]
        labelled = sorted(known | own)
        merged[key] = replace(
            first,
            annotations=[*first.annotations, *added],
            labelled_classes=None if len(labelled) == len(every) else labelled,
        )
    if twice:
        logger.warning(
            "%s: in more than one data set with a common class; the first set counts for it", plural(twice, "image")
        )
    keypoints, skeleton = skeletons[0] if skeletons else ([], [])
    images = [replace(record, image_id=number) for number, record in enumerate(merged.values(), start=1)]
    return DataSet(list(class_map.classes), images, None, keypoints, skeleton)


def _region(crowd: Annotation) -> tuple[Any, ...]:
    return crowd.category, crowd.box, str(crowd.segmentation)
