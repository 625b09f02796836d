"""KITTI object detection (cvlibs.net/datasets/kitti, readme.txt of the devkit): boxes, a text ``<image>.txt`` for each image.

A row is ``type truncated occluded alpha x0 y0 x1 y1`` and seven numbers of the box in space, in pixels with 0 at the left and upper edge.
``DontCare`` rows are regions whose objects are not labelled.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from maskrcnn_ext.data.formats import Format, Option
from maskrcnn_ext.data.formats.checked_values import clip_box, finite
from maskrcnn_ext.data.formats.drawn_objects import IGNORE_LABEL, add_object
from maskrcnn_ext.data.formats.file_names import pair_files
from maskrcnn_ext.data.formats.image_files import IMAGE_SUFFIXES, image_size
from maskrcnn_ext.data.formats.reading_many import collected, in_threads
from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord
from maskrcnn_ext.data.formats.text_files import read_text
from maskrcnn_ext.data.formats.warnings import Tally
from maskrcnn_ext.errors import InputError

_IGNORED = "DontCare"
_FIELDS = (15, 16)  # with a score in results
_BOX = slice(4, 8)


def read_kitti(
    labels: Path, images: Path, *, classes: Sequence[str] | None = None, faults: list[str] | None = None
) -> DataSet:
    """Reads the boxes of KITTI.

    Args:
        labels: the folder of the texts, such as ``training/label_2``.
        images: the folder of the images, such as ``training/image_2``.
        classes: class names; the types in the files, sorted, when not given. To leave some out or join them, see ``@map:``.
        faults: gets the faults of files and rows, which are left out; None to raise the first.

    Returns:
        One record per image, sorted; ids are names without suffix. Objects are boxes without a mask. A ``DontCare`` region is a
        crowd of each class.

    Raises:
        InputError: an image without a text, a row with another number of fields, a broken box, or an unknown class.
    """
    texts = [(image, text, read_text(text)) for image, text in pair_files(images, labels, IMAGE_SUFFIXES, (".txt",))]
    if not classes:
        rows = (row.split() for _, _, text in texts for row in text.splitlines())
        classes = sorted({fields[0] for fields in rows if len(fields) in _FIELDS} - {_IGNORED})
    names = list(classes)
    tally = Tally()

    def read(entry: tuple[Path, Path, str]) -> ImageRecord:
        image, file, text = entry
        record = ImageRecord(str(image), image.stem, *image_size(image, str(file)))
        for number, row in enumerate(text.splitlines(), start=1):
            with collected(faults):
                if row.strip():
                    _add(row.split(), record, names, tally, f"{file}, line {number}")
        return record

    records = in_threads(read, texts, faults)
    tally.warn(labels)
    return DataSet(names, records)


def _add(fields: list[str], record: ImageRecord, classes: Sequence[str], tally: Tally, where: str) -> None:
    if len(fields) not in _FIELDS:
        raise InputError(
            f"{where}: {len(fields)} fields, expected {_FIELDS[0]}: type, truncated, occluded, alpha, x0, y0, ..."
        )
    box = clip_box(finite(fields[_BOX], where), record.height, record.width, where, tally.clipped)
    label = IGNORE_LABEL if fields[0] == _IGNORED else fields[0]
    add_object(record, Annotation(0, box), label, classes, where)


FORMAT = Format(
    name="kitti",
    description="KITTI object detection: boxes, a text an image",
    read=read_kitti,
    options=(
        Option("labels", "the texts, such as `training/label_2`", "folder", required=True),
        Option("images", "the images, such as `training/image_2`", "folder", required=True),
    ),
    shorthand=("labels", "images"),
    lists_faults=True,
)
