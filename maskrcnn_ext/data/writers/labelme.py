"""labelme JSON (version 5): an image and a file of the same name beside it; the parts of an object share a ``group_id``.

``labels.txt`` lists the classes, one a line, also those without objects.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maskrcnn_ext.data.formats.labelme import LABELS_FILE
from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord
from maskrcnn_ext.data.writers.files import check_plain_images, each_image, image_names, place_image
from maskrcnn_ext.data.writers.labelled_objects import label_names, labelled_objects
from maskrcnn_ext.data.writers.outlines import polygons_of

_VERSION = "5.4.1"


def write_labelme(data: DataSet, folder: Path, *, link: bool) -> Counter[str]:
    """Writes a dataset; see :mod:`maskrcnn_ext.data.writers`."""
    check_plain_images(data)
    folder.mkdir(parents=True)
    lost: Counter[str] = Counter()
    labels = "".join(f"{name}\n" for name in label_names(data, lost))
    (folder / LABELS_FILE).write_text(labels, encoding="utf-8")
    for record, name in zip(each_image(data, "images"), image_names(data), strict=True):
        place_image(record, folder / name, link=link)
        write_labelme_json(record, data.classes, (folder / name).with_suffix(".json"), name, lost)
    return lost


def write_labelme_json(record: ImageRecord, classes: Sequence[str], file: Path, image: str, lost: Counter[str]) -> None:
    """Writes the file of one image.

    Args:
        record: the image and its objects.
        classes: the class names.
        file: the JSON file to write.
        image: path of the image, absolute or relative to the folder of the file.
        lost: gets the contents that the format cannot express.
    """
    shapes: list[dict[str, Any]] = []
    for group, (annotation, label) in enumerate(labelled_objects(record, classes), start=1):
        shapes += _shapes(annotation, record, label, group, lost)
    content: dict[str, Any] = {
        "version": _VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": image,
        "imageData": None,
        "imageHeight": record.height,
        "imageWidth": record.width,
    }
    text = json.dumps(content, indent=2, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def _shapes(
    annotation: Annotation, record: ImageRecord, label: str, group: int, lost: Counter[str]
) -> list[dict[str, Any]]:
    """Returns the shapes of an object; empty if the format cannot express it."""
    if annotation.crowd:
        lost["crowds left out, because labelme cannot mark them"] += 1
        return []
    if annotation.keypoints:
        lost["keypoints of objects left out"] += 1
    if annotation.segmentation is None:
        x0, y0, x1, y1 = annotation.box
        kind, outlines = "rectangle", [[x0, y0, x1, y1]]
    else:
        kind, outlines = "polygon", polygons_of(annotation, record.height, record.width)
        if not outlines:
            lost["objects left out because they have no area in their image"] += 1
    return [
        {
            "label": label,
            "points": [[float(x), float(y)] for x, y in zip(outline[0::2], outline[1::2], strict=True)],
            "group_id": group if len(outlines) > 1 else None,
            "description": "",
            "shape_type": kind,
            "flags": {},
            **({} if annotation.score is None else {"score": annotation.score}),
        }
        for outline in outlines
    ]
