"""Reads Pascal VOC (host.robots.ox.ac.uk/pascal/VOC): boxes from ``Annotations/*.xml``, masks from the PNGs of its segmentation task.

Outlines in the XML, as in Roboflow's exports, are read as well; rotated boxes of CVAT and roLabelImg become polygons.

VOC's boxes count from 1 and include their last pixel: ``<xmin>1</xmin> <xmax>w</xmax>`` is the whole width and is read as 0 and w.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from xml.etree import ElementTree

import numpy as np

from maskrcnn_ext.common.text import plural
from maskrcnn_ext.data.formats import Format, Option
from maskrcnn_ext.data.formats.checked_values import category_of, clip_box, finite
from maskrcnn_ext.data.formats.file_names import check_different, list_files, parse_name, path_below
from maskrcnn_ext.data.formats.image_files import IMAGE_SUFFIXES, image_size, read_labels
from maskrcnn_ext.data.formats.polygons import box_of_polygons, check_outline, rotated_box
from maskrcnn_ext.data.formats.reading_many import collected, in_threads
from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord, crowds_of_mask
from maskrcnn_ext.data.formats.text_files import read_text, read_xml
from maskrcnn_ext.data.formats.warnings import Tally
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.rle import encode_labels, pairwise_iou

logger = logging.getLogger(__name__)

_VOID = 255  # value of borders between objects and of unclear pixels in the PNGs


def read_voc(
    annotations: Path,
    images: Path,
    *,
    classes: Sequence[str] | None = None,
    objects: Path | None = None,
    split: Path | None = None,
    keep_difficult: bool = False,
    one_based: bool = True,
    faults: list[str] | None = None,
) -> DataSet:
    """Reads VOC annotations.

    Args:
        annotations: the folder of the XML files.
        images: the folder of the images (``JPEGImages``). An XML whose ``filename`` is missing there has the image with the name of the
            XML; one warning counts them.
        classes: the class names. Default: the names of all objects, sorted.
        objects: the folder of the instance PNGs (``SegmentationObject``). The instances of a PNG are assigned to the objects of the XML
            by the overlap of their boxes. An object without pixels in the PNG has only its box. Pixels of value 255, the borders of
            objects and unclear pixels, are an ignore region: a crowd of each class.
        split: a file whose lines start with an image id, such as ``ImageSets/Segmentation/train.txt``. Default: all XML files.
        keep_difficult: whether objects marked ``difficult`` are trained on and counted. By default they are crowds, which training and
            evaluation ignore as VOC's rules require.
        one_based: whether boxes count from 1. Set it to False for the XML of other tools, such as labelme, whose coordinates are the
            box's edges from 0.
        faults: gets the faults of files and objects, which are left out; None to raise the first.

    Returns:
        One record per XML, sorted by name or in the order of ``split``. Boxes are those of the XML, clipped to the image; warnings count
        boxes that are clipped, and those whose corners are swapped.

    Raises:
        InputError: there is no XML or it is broken; an image or PNG is missing, unreadable or of another size than the XML says; a class
            is not in ``classes``; a box is outside of the image; an instance overlaps no object; ``split`` lists an image twice.
    """
    if split is not None:
        names = [line.split()[0] for line in read_text(split).splitlines() if line.strip()]
        check_different(names, str(split))
        files = [path_below(annotations, f"{name}.xml", str(split)) for name in names]
    else:
        files = list_files(annotations, "*.xml")
    if not files:
        raise InputError(f"{split or annotations}: no annotations here, expected {'ids' if split else '*.xml files'}")
    parsed = in_threads(lambda file: (file, _parse(file)), files, faults)
    if not classes:
        found = {(each.findtext("name") or "").strip() for _, tree in parsed for each in tree.iter("object")}
        classes = sorted(found - {""})
    names = list(classes)
    tally = Tally()

    def read(entry: tuple[Path, ElementTree.Element]) -> tuple[ImageRecord, ElementTree.Element]:
        file, tree = entry
        record = _record(file, tree, images)
        for number, element in enumerate(tree.iter("object")):
            where = f"{file}: object {number}"
            with collected(faults):
                annotation = _annotation(element, record, names, int(one_based), where, tally)
                annotation.crowd = not keep_difficult and (element.findtext("difficult") or "0").strip() == "1"
                record.annotations.append(annotation)
        if objects is not None:
            record.annotations += _add_masks(record, objects / f"{file.stem}.png", file, len(names))
        return record, tree

    read_files = in_threads(read, parsed, faults)
    tally.warn(annotations)
    renamed = [record for record, tree in read_files if Path(record.file_name).stem not in _image_names(tree)]
    if renamed:
        count = plural(len(renamed), "file names", "files name")
        summary = f"{count} a missing image; the image with the name of the file is used"
        logger.warning("%s: %s, such as %s", annotations, summary, renamed[0].file_name)
    return DataSet(names, [record for record, _ in read_files])


def _image_names(tree: ElementTree.Element) -> tuple[str, str]:
    """Returns the image name in an XML, without and with its suffix; some tools leave the suffix out."""
    path = PureWindowsPath((tree.findtext("filename") or "").strip())
    return path.stem, path.name


def _parse(file: Path) -> ElementTree.Element:
    tree = read_xml(file)
    if tree.tag != "annotation":
        raise InputError(f"{file}: not a VOC annotation (expected <annotation>, found <{tree.tag}>)")
    return tree


def _text(element: ElementTree.Element, path: str, where: object) -> str:
    text = (element.findtext(path) or "").strip()
    if not text:
        raise InputError(f"{where}: <{element.tag}> has no <{path.replace('/', '><')}>")
    return text


def _record(file: Path, tree: ElementTree.Element, images: Path) -> ImageRecord:
    """Returns the record without annotations."""
    image = _image_file(images, _text(tree, "filename", file), file)
    height, width = image_size(image, str(file))
    for side, pixels in (("width", width), ("height", height)):
        stated = tree.findtext(f"size/{side}") or "0"
        if finite([stated], f"{file}: <size>")[0] not in (0, pixels):  # some tools always write 0
            raise InputError(f"{file}: <{side}> is {stated}, but {image} is {width} x {height} (width, height)")
    return ImageRecord(str(image), file.stem, height, width)


def _annotation(
    element: ElementTree.Element, record: ImageRecord, classes: Sequence[str], first: int, where: str, tally: Tally
) -> Annotation:
    height, width = record.height, record.width
    rotated = _rotated_box(element, where)
    if rotated is None:
        x0, y0, x1, y1 = _corners(element, where, tally)
        box = clip_box((x0 - first, y0 - first, x1, y1), height, width, where, tally.clipped)
    else:
        tally.rotated.append(where)
        check_outline(rotated, height, width, where)
        box = clip_box(box_of_polygons([rotated], height, width), height, width, where)
    category = category_of(_text(element, "name", where), classes, where)
    annotation = Annotation(category, box, None if rotated is None else [rotated])
    polygon = element.find("polygon")
    if polygon is not None:
        annotation.segmentation = [_outline(polygon, f"{where}, <polygon>")]
        check_outline(annotation.segmentation[0], height, width, f"{where}, <polygon>")
    return annotation


def _corners(element: ElementTree.Element, where: str, tally: Tally | None = None) -> tuple[float, float, float, float]:
    """Returns (x0, y0, x1, y1) as the XML counts them, in order."""
    corners = [_text(element, f"bndbox/{side}", where) for side in ("xmin", "ymin", "xmax", "ymax")]
    x0, y0, x1, y1 = finite(corners, f"{where}, <bndbox>")
    if tally is not None and (x0 > x1 or y0 > y1):
        tally.swapped.append(where)
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


def _rotated_box(element: ElementTree.Element, where: str) -> list[float] | None:
    """Returns the polygon of a rotated box; None for an upright one. The coordinates of both tools that write them count from 0.

    CVAT writes an attribute ``rotation`` in degrees beside the upright box, roLabelImg a <robndbox> with radians; both clockwise.
    """
    rotated = element.find("robndbox")
    if rotated is not None:
        cx, cy, width, height, angle = finite(
            (_text(rotated, name, where) for name in ("cx", "cy", "w", "h", "angle")), f"{where}, <robndbox>"
        )
        return rotated_box(cx, cy, width, height, math.degrees(angle))
    attributes = {each.findtext("name"): each.findtext("value") for each in element.iterfind("attributes/attribute")}
    (rotation,) = finite([attributes.get("rotation") or 0], f"{where}, rotation")
    if rotation % 180 == 0:
        return None
    x0, y0, x1, y1 = _corners(element, where)
    return rotated_box((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0, rotation)


def _image_file(images: Path, name: str, file: Path) -> Path:
    """Returns the image of an XML, whose ``filename`` may have a path of the annotator's machine, lack its suffix, or be outdated."""
    path = parse_name(name, str(file))
    inside = Path(*[part for part in path.parts if part not in (path.anchor, "..")])
    stems = (path.name, file.stem)
    named = [f"{stem}{suffix}" for stem in stems for lower in IMAGE_SUFFIXES for suffix in (lower, lower.upper())]
    candidates = [images / inside, images / path.name, *(images / one for one in named)]
    return next((candidate for candidate in candidates if candidate.is_file()), images / path.name)


def _outline(polygon: ElementTree.Element, where: str) -> list[float]:
    """Returns the polygon [x, y, x, y, ...] that Roboflow writes as <x1>, <y1>, <x2>, ..."""
    values = {child.tag: child.text for child in polygon}
    if len(values) < 6:
        raise InputError(f"{where}: expected at least 3 points, as <x1>, <y1>, <x2>, ...")
    return finite((values.get(f"{axis}{k + 1}") for k in range((len(values) + 1) // 2) for axis in "xy"), where)


def _add_masks(record: ImageRecord, png: Path, file: Path, num_classes: int) -> list[Annotation]:
    """Assigns the instances of a PNG to the objects of the record, the best overlaps of boxes first. Returns its unlabelled pixels."""
    if not png.is_file():
        raise InputError(f"{file}: no instance PNG {png}; name the images that have one with `split`")
    labels = read_labels(png, record.height, record.width)
    regions = encode_labels(np.where(labels == _VOID, 0, labels))
    unlabelled = crowds_of_mask(labels == _VOID, num_classes)
    if not regions:
        return unlabelled
    boxes, of_regions = (
        np.array([each.box for each in side], dtype=np.float64).reshape(-1, 4) for side in (record.annotations, regions)
    )
    overlap = pairwise_iou(_xywh(of_regions), _xywh(boxes)) if len(boxes) else np.zeros((1, 1))
    for _ in regions:
        region, chosen = np.unravel_index(overlap.argmax(), overlap.shape)
        if overlap[region, chosen] <= 0:
            break
        record.annotations[chosen].segmentation = regions[region].rle
        record.annotations[chosen].id = regions[region].value
        overlap[region], overlap[:, chosen] = -1, -1
    else:
        return unlabelled
    given = {annotation.id for annotation in record.annotations}
    left = next(region.value for region in regions if region.value not in given)
    raise InputError(
        f"{png}: instance {left} overlaps no object of {file}, or only objects that overlap other instances more"
    )


def _xywh(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


FORMAT = Format(
    name="voc",
    description="Pascal VOC: XML boxes, and instance PNGs of the segmentation task",
    read=read_voc,
    options=(
        Option("annotations", "the XML files", "folder", required=True),
        Option("images", "the images, such as JPEGImages", "folder", required=True),
        Option("objects", "the instance PNGs, such as SegmentationObject", "folder"),
        Option("split", "a list of image ids, such as ImageSets/Segmentation/train.txt", "file"),
        Option("keep_difficult", "whether objects marked difficult are trained on and counted", "switch"),
        Option("one_based", "whether coordinates count from 1 as in VOC", "switch"),
    ),
    shorthand=("annotations", "images"),
    split_option="split",
    lists_faults=True,
    crowd_option="keep_difficult:true",
)
