"""Objects with the labels of label tools: printable class names, and ``__ignore__`` for a region that belongs to no class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from maskrcnn_ext.common.text import printable
from maskrcnn_ext.data.formats.drawn_objects import IGNORE_LABEL
from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord


def labelled_objects(record: ImageRecord, classes: Sequence[str]) -> Iterator[tuple[Annotation, str]]:
    """Yields the objects of an image with their labels. A region that is a crowd of each class is one object, ``__ignore__``, and no crowd.

    Example:
        >>> region = Annotation(0, (0, 0, 4, 4), crowd=True)
        >>> record = ImageRecord("a.png", 1, 9, 9, [region, replace(region, category=1)])
        >>> [label for _, label in labelled_objects(record, ["cat", "dog"])]
        ['__ignore__']
    """
    crowds: dict[str, set[int]] = {}
    for annotation in record.annotations:
        if annotation.crowd:
            crowds.setdefault(_place(annotation), set()).add(annotation.category)
    written = set()
    for annotation in record.annotations:
        place = _place(annotation) if annotation.crowd else ""
        if len(crowds.get(place, ())) < len(classes):
            yield annotation, printable(classes[annotation.category])
        elif place not in written:
            written.add(place)
            yield replace(annotation, crowd=False), IGNORE_LABEL


def label_names(data: DataSet, lost: Counter[str]) -> list[str]:
    """Returns the different class names, and ``__ignore__`` if an image has such a region.

    Args:
        data: the records.
        lost: gets the number of classes that have the name of another one.

    Example:
        >>> label_names(DataSet(["cat", "dog"], []), Counter())
        ['cat', 'dog']
    """
    names = list(dict.fromkeys(map(printable, data.classes)))
    if len(names) < len(data.classes):
        lost["classes merged with another class of the same name"] += len(data.classes) - len(names)
    labels = (label for record in data.images for _, label in labelled_objects(record, data.classes))
    return [*names, *([IGNORE_LABEL] if IGNORE_LABEL not in names and IGNORE_LABEL in labels else [])]


def _place(annotation: Annotation) -> str:
    return repr((annotation.box, annotation.segmentation))
