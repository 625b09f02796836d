"""The HTML page of a data set: its faults with pictures, what it holds, and the anchors that fit it. One self-contained file."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

from maskrcnn_ext.data.check import KINDS, SEVERITIES, DatasetView, Fault, group_by_kind
from maskrcnn_ext.data.check.anchors import AnchorAdvice
from maskrcnn_ext.report.fault_pictures import picture_of
from maskrcnn_ext.report.histograms import bars, histogram
from maskrcnn_ext.report.template import write_page

_NUM_PICTURES = 6  # a kind of fault
_NUM_LINES = 200  # a kind of fault


def write_data_page(view: DatasetView, faults: list[Fault], advice: AnchorAdvice | None, page: Path) -> Path:
    """Writes the page.

    Args:
        view: the data set.
        faults: what was found in it.
        advice: anchors and input size; None where there are no boxes.
        page: the file to write.

    Returns:
        `page`.

    Raises:
        InputError: it cannot be written.
    """
    counts = Counter(fault.severity for fault in faults)
    classes = Counter(found.category for found in view.objects if found.category is not None)
    per_image = [len(view.objects_of(image)) for image in view.images]
    return write_page(
        page,
        "data_page.html",
        title=view.name,
        num_images=len(view.images),
        num_objects=len(view.objects),
        severities=[(severity, counts[severity]) for severity in SEVERITIES],
        sections=[_section(view, kind, found) for kind, found in group_by_kind(faults).items()],
        advice=advice,
        charts=[
            histogram(_object_sizes(view), xlabel="object size (square root of the box's area, pixels)",
                      ylabel="objects", log=True),
            histogram(per_image, xlabel="objects in an image", ylabel="images"),
            bars({name: classes[index] for index, name in enumerate(view.classes)}, xlabel="objects of a class"),
        ],
    )  # fmt: skip


def _section(view: DatasetView, kind: str, faults: list[Fault]) -> dict[str, Any]:
    pictures = []
    for fault in faults[:_NUM_LINES]:
        shown = picture_of(fault, view.objects_of(fault.image) if fault.image is not None else [])
        if shown:
            pictures.append({"images": shown, "where": fault.where, "message": fault.message})
        if len(pictures) == _NUM_PICTURES:
            break
    return {
        "kind": kind,
        "severity": KINDS[kind].severity,
        "title": KINDS[kind].title,
        "fix": KINDS[kind].fix,
        "count": len(faults),
        "faults": faults[:_NUM_LINES],
        "pictures": pictures,
    }


def _object_sizes(view: DatasetView) -> list[float]:
    boxes = [found.box for found in view.objects if found.box is not None]
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in boxes if box[2] > box[0] and box[3] > box[1]]
    return [math.sqrt(area) for area in areas]
