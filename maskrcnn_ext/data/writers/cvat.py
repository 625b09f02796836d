"""CVAT for images 1.1: ``annotations.xml`` beside ``images/``.

An object of one polygon is a polygon, any other with an outline a mask of the same pixels, and a box without one a box. The attribute
``is_crowd`` marks crowds, the label ``__ignore__`` a region of no class, ``score`` the score of a prediction; CVAT keeps attributes that
the labels of its task have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from maskrcnn_ext.common.text import printable
from maskrcnn_ext.data.formats.cvat import CROWD_ATTRIBUTE
from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord
from maskrcnn_ext.data.writers.files import check_plain_images, each_image, image_names, place_image
from maskrcnn_ext.data.writers.labelled_objects import label_names, labelled_objects
from maskrcnn_ext.data.writers.outlines import decode, single_polygon
from maskrcnn_ext.ops.tool_rle import encode_rows


def write_cvat(data: DataSet, folder: Path, *, link: bool) -> Counter[str]:
    """Writes a dataset; see :mod:`maskrcnn_ext.data.writers`."""
    check_plain_images(data)
    names = image_names(data)
    (folder / "images").mkdir(parents=True)
    for record, name in zip(each_image(data, "images"), names, strict=True):
        place_image(record, folder / "images" / name, link=link)
    return write_cvat_xml(data, folder / "annotations.xml", names)


def write_cvat_xml(data: DataSet, file: Path, names: Sequence[str]) -> Counter[str]:
    """Writes the annotations only.

    Args:
        data: the records.
        file: the XML file to write.
        names: the name of each image in CVAT's task.

    Returns:
        The contents that the format cannot express, each with its count.
    """
    lost: Counter[str] = Counter()
    lines = [
        '<?xml version="1.0" encoding="utf-8"?>',
        "<annotations>",
        "  <version>1.1</version>",
        f"  <meta><task><size>{len(data.images)}</size><labels>",
        *(f"    <label><name>{escape(name)}</name></label>" for name in label_names(data, lost)),
        "  </labels></task></meta>",
    ]
    for number, (record, name) in enumerate(zip(each_image(data, "annotations"), names, strict=True)):
        sides = f'width="{record.width}" height="{record.height}"'
        lines.append(f'  <image id="{number}" name={_quoted(name)} {sides}>')
        shapes = (_shape(each, record, label, lost) for each, label in labelled_objects(record, data.classes))
        lines += filter(None, shapes)
        lines.append("  </image>")
    text = "\n".join([*lines, "</annotations>", ""])
    file.write_text(text, encoding="utf-8", errors="xmlcharrefreplace")
    return lost


def _shape(annotation: Annotation, record: ImageRecord, label: str, lost: Counter[str]) -> str:
    """Returns the element of an object; empty if the format cannot express it."""
    if annotation.keypoints:
        lost["keypoints of objects left out"] += 1
    polygon = single_polygon(annotation, record.height, record.width)
    if annotation.segmentation is None:
        sides = zip(("xtl", "ytl", "xbr", "ybr"), annotation.box, strict=True)
        kind, values = "box", " ".join(f'{key}="{float(value)!r}"' for key, value in sides)
    elif polygon:
        pairs = zip(polygon[0::2], polygon[1::2], strict=True)
        kind, values = "polygon", f'points="{";".join(f"{float(x)!r},{float(y)!r}" for x, y in pairs)}"'
    else:
        mask = decode(annotation.segmentation, record.height, record.width)
        ys, xs = mask.any(axis=1).nonzero()[0], mask.any(axis=0).nonzero()[0]
        if not len(xs):
            lost["objects left out because they have no area in their image"] += 1
            return ""
        patch = mask[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]
        counts = ", ".join(map(str, encode_rows(patch)))
        height, width = patch.shape
        kind = "mask"
        values = f'rle="{counts}" left="{xs[0]}" top="{ys[0]}" width="{width}" height="{height}"'
    attributes = {CROWD_ATTRIBUTE: "true"} if annotation.crowd else {}
    if annotation.score is not None:
        attributes["score"] = f"{annotation.score:.4f}"
    inner = "".join(f'<attribute name="{name}">{value}</attribute>' for name, value in attributes.items())
    source = "manual" if annotation.score is None else "auto"
    return f'    <{kind} label={_quoted(label)} source="{source}" occluded="0" {values} z_order="0">{inner}</{kind}>'


def _quoted(text: str) -> str:
    return quoteattr(printable(text))
