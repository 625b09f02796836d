"""Label Studio: ``tasks.json`` to import, ``label_config.xml`` for the labelling interface of the project, and ``images/``.

The images are URLs of local files: their root in Label Studio, ``LOCAL_FILES_DOCUMENT_ROOT``, is the folder that is written. If objects
have scores, they are predictions (pre-annotations), else annotations. An object of one polygon is a polygon, any other with an outline a
brush stroke of the same pixels, and a box without one a rectangle.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from maskrcnn_ext.data.formats.label_studio import CONFIG_FILE
from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord
from maskrcnn_ext.data.writers.files import check_plain_images, each_image, image_names, place_image
from maskrcnn_ext.data.writers.labelled_objects import label_names, labelled_objects
from maskrcnn_ext.data.writers.outlines import decode, single_polygon
from maskrcnn_ext.ops.tool_rle import encode_brush

_TAGS = {"polygon": "PolygonLabels", "brush": "BrushLabels", "rectangle": "RectangleLabels"}


def write_label_studio(data: DataSet, folder: Path, *, link: bool) -> Counter[str]:
    """Writes a dataset; see :mod:`maskrcnn_ext.data.writers`."""
    check_plain_images(data)
    names = image_names(data)
    (folder / "images").mkdir(parents=True)
    for record, name in zip(each_image(data, "images"), names, strict=True):
        place_image(record, folder / "images" / name, link=link)
    predicted = any(annotation.score is not None for record in data.images for annotation in record.annotations)
    urls = [local_file_url(f"images/{name}") for name in names]
    return write_label_studio_json(data, folder, urls, predicted=predicted)


def local_file_url(path: str) -> str:
    """Returns Label Studio's URL of a file below its ``LOCAL_FILES_DOCUMENT_ROOT``.

    Example:
        >>> local_file_url("images/a b.png")
        '/data/local-files/?d=images/a%20b.png'
    """
    return f"/data/local-files/?d={quote(path, errors='replace')}"


def write_label_studio_json(data: DataSet, folder: Path, urls: Sequence[str], *, predicted: bool) -> Counter[str]:
    """Writes ``tasks.json`` and ``label_config.xml``.

    Args:
        data: the records.
        folder: an existing folder.
        urls: the URL of each image.
        predicted: whether the objects are predictions. A task without objects is then written as unlabelled.

    Returns:
        The contents that the format cannot express, each with its count.
    """
    lost: Counter[str] = Counter()
    tasks = []
    for number, (record, url) in enumerate(zip(each_image(data, "annotations"), urls, strict=True), start=1):
        regions = [
            region
            for index, (annotation, label) in enumerate(labelled_objects(record, data.classes))
            if (region := _region(annotation, record, label, f"{number}_{index}", lost))
        ]
        scores = [region["score"] for region in regions if "score" in region]
        task: dict[str, Any] = {"id": number, "data": {"image": url}}
        if predicted:
            mean = sum(scores) / max(len(scores), 1)
            task["predictions"] = [{"model_version": "maskrcnn_ext", "score": mean, "result": regions}]
        else:
            task["annotations"] = [{"result": regions}]
        tasks.append(task)
    (folder / "tasks.json").write_text(json.dumps(tasks), encoding="utf-8")
    labels = "".join(f"<Label value={quoteattr(name)}/>" for name in label_names(data, lost))
    tags = "".join(f'<{tag} name="{kind}" toName="image">{labels}</{tag}>' for kind, tag in _TAGS.items())
    config = f'<View><Image name="image" value="$image"/>{tags}</View>\n'
    (folder / CONFIG_FILE).write_text(config, encoding="utf-8", errors="xmlcharrefreplace")
    return lost


def _region(
    annotation: Annotation, record: ImageRecord, label: str, key: str, lost: Counter[str]
) -> dict[str, Any] | None:
    """Returns the region of an object; None if the format cannot express it."""
    if annotation.crowd:
        lost["crowds left out, because Label Studio cannot mark them"] += 1
        return None
    if annotation.keypoints:
        lost["keypoints of objects left out"] += 1
    scale = (100 / record.width, 100 / record.height)
    polygon = single_polygon(annotation, record.height, record.width)
    value: dict[str, Any]
    if annotation.segmentation is None:
        x0, y0, x1, y1 = annotation.box
        sides = (x0 * scale[0], y0 * scale[1], (x1 - x0) * scale[0], (y1 - y0) * scale[1])
        kind, value = "rectangle", {**dict(zip(("x", "y", "width", "height"), sides, strict=True)), "rotation": 0}
    elif polygon:
        pairs = zip(polygon[0::2], polygon[1::2], strict=True)
        kind, value = "polygon", {"points": [[x * scale[0], y * scale[1]] for x, y in pairs], "closed": True}
    else:
        mask = decode(annotation.segmentation, record.height, record.width)
        if not mask.any():
            lost["objects left out because they have no area in their image"] += 1
            return None
        kind, value = "brush", {"format": "rle", "rle": encode_brush(mask)}
    return {
        "id": key,
        "type": f"{kind}labels",
        "from_name": kind,
        "to_name": "image",
        "original_width": record.width,
        "original_height": record.height,
        "image_rotation": 0,
        "value": {**value, f"{kind}labels": [label]},
        **({} if annotation.score is None else {"score": annotation.score}),
    }
