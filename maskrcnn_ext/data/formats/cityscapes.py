"""Cityscapes (cityscapes-dataset.com; arXiv:1604.01685): gtFine or gtCoarse, ``<split>/<city>/*_instanceIds.png`` of 16 bits.

A pixel is ``1000 * label id + number`` on an object, and the label id for a group of objects. The PNG is read rather than
``*_polygons.json``: in it the polygons, which overlap, are drawn from back to front, so that it shows the visible pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from maskrcnn_ext.data.formats import Format, Option
from maskrcnn_ext.data.formats.file_names import list_files
from maskrcnn_ext.data.formats.image_files import image_size, read_labels
from maskrcnn_ext.data.formats.reading_many import in_threads
from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.rle import encode_labels

# The labels with instances that the benchmark evaluates, that is, without caravan and trailer.
_LABEL_IDS = {
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}


def read_cityscapes(
    annotations: Path, images: Path, *, classes: Sequence[str] | None = None, faults: list[str] | None = None
) -> DataSet:
    """Reads one split of Cityscapes.

    Args:
        annotations: the split's folder of city folders, such as ``gtFine/train``.
        images: the same folder of the photographs, such as ``leftImg8bit/train``.
        classes: which of the eight classes, in the order of the model; all when not given.
        faults: gets the faults of files, which are left out; None to raise the first.

    Returns:
        One record per annotated photograph, sorted by name; its id is "<city>_<sequence>_<frame>". Groups are crowds.

    Raises:
        InputError: no such PNGs, one that is damaged or of another size than its photograph, a missing photograph, or an unknown class.
    """
    names = list(classes or _LABEL_IDS)
    unknown = [name for name in names if name not in _LABEL_IDS]
    if unknown:
        raise InputError(f"{annotations}: class {unknown[0]!r}, expected some of {', '.join(_LABEL_IDS)}")
    categories = {_LABEL_IDS[name]: index for index, name in enumerate(names)}
    files = list_files(annotations, "*/*_instanceIds.png")
    if not files:
        raise InputError(
            f"{annotations}: no <city>/*_instanceIds.png here; name a split's folder, such as gtFine/train"
        )
    return DataSet(names, in_threads(lambda file: _record(file, images, categories), files, faults))


def _record(file: Path, images: Path, categories: dict[int, int]) -> ImageRecord:
    image_id = file.name.removesuffix("_instanceIds.png").rpartition("_")[0]  # without _gtFine
    image = images / file.parent.name / f"{image_id}_leftImg8bit.png"
    height, width = image_size(image, str(file))
    record = ImageRecord(str(image), image_id, height, width)
    labels = read_labels(file, height, width)
    kinds = np.where(labels < 1000, labels, labels // 1000)
    for value, box, rle in encode_labels(np.where(np.isin(kinds, list(categories)), labels, 0)):
        label_id = value if value < 1000 else value // 1000
        record.annotations.append(Annotation(categories[label_id], box, rle, crowd=value < 1000, id=value))
    return record


FORMAT = Format(
    name="cityscapes",
    description="Cityscapes: instance PNGs, a folder a city",
    read=read_cityscapes,
    options=(
        Option("annotations", "the split's folder of city folders, such as gtFine/train", "folder", required=True),
        Option("images", "the same folder of the photographs, such as leftImg8bit/train", "folder", required=True),
    ),
    shorthand=("annotations", "images"),
    lists_faults=True,
)
