"""``maskrcnn-ext convert``: writes a data set in another format."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

_FORMATS = (
    "coco",
    "yolo",
    "labelme",
    "label-image",
    "cvat",
    "label-studio",
    "supervisely",
    "geojson",
    "coco-panoptic",
)

_WRITTEN = """\
files that are written:
  coco         DST/annotations.json and DST/images; only the annotations if DST ends with .json
  yolo         DST/data.yaml, DST/images and DST/labels (outlines, or boxes for objects without an outline)
  labelme      DST/*.json, each next to its image
  label-image  DST/images, DST/labels (16-bit PNG with one number per object; a later object covers an earlier one) and
               DST/classes.json
  cvat         DST/annotations.xml (CVAT for images 1.1) and DST/images
  label-studio DST/tasks.json, DST/label_config.xml and DST/images; DST is LOCAL_FILES_DOCUMENT_ROOT of Label Studio
  supervisely  DST/meta.json, DST/ds0/ann and DST/ds0/img
  geojson      DST/labels (outlines in pixels, for QuPath) and DST/images
  coco-panoptic  DST/panoptic.json, DST/panoptic (PNG) and DST/images
Objects and attributes that a format cannot store are counted on stderr. DST appears when it is complete.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _WRITTEN
    parser.add_argument(
        "source", metavar="SRC", help="a registered name, a path, or FORMAT:A@B such as coco:a.json@images"
    )
    parser.add_argument("target", metavar="DST", type=Path, help="the folder or file to write")
    parser.add_argument("--to", required=True, choices=_FORMATS, help="the format to write")
    parser.add_argument("--link", action="store_true", help="link to the images instead of copying them")
    parser.add_argument("--overwrite", action="store_true", help="replace DST")


def run(args: argparse.Namespace) -> int:
    """Converts a data set, and prints the size of the result."""
    from maskrcnn_ext.common.next_command import print_next
    from maskrcnn_ext.common.text import plural
    from maskrcnn_ext.data.registry.catalog import load_dataset, split_note
    from maskrcnn_ext.data.writers import find_writer
    from maskrcnn_ext.data.writers.coco import write_coco_json
    from maskrcnn_ext.data.writers.files import check_plain_images, common_folder, staged
    from maskrcnn_ext.errors import InputError

    json_only = args.to == "coco" and args.target.suffix == ".json"
    if json_only and args.link:
        raise InputError("--link needs images: give a folder as DST")
    if args.target.exists() and not args.overwrite:  # checked before reading, which may take long
        raise InputError(f"{args.target} exists: choose another DST, or add --overwrite")
    data = load_dataset(args.source)
    sources = [Path(record.file_name) for record in data.images]
    with staged(args.target, overwrite=args.overwrite, sources=sources) as partial:
        if json_only:
            check_plain_images(data)
            folder = common_folder(data)
            names = [path.absolute().relative_to(folder).as_posix() for path in sources]
            write_coco_json(data, partial, names)
            lost = {}
        else:
            folder = args.target / "images"
            lost = dict(find_writer(args.to.replace("-", "_"))(data, partial, link=args.link))
    partly = sum(record.labelled_classes is not None for record in data.images)
    if partly and args.to != "coco":
        lost["images label only some of the classes, which only COCO can store"] = partly
    points = sum(bool(annotation.points) for record in data.images for annotation in record.annotations)
    if points and args.to != "coco":
        lost["objects lose their labelled points, which only COCO can store"] = points
    for problem, count in lost.items():
        print(f"maskrcnn-ext convert: warning: {problem}: {count}", file=sys.stderr)
    if note := split_note(args.source):
        print(note)
    crowds = Counter(annotation.crowd for record in data.images for annotation in record.annotations)
    objects = plural(crowds[False], "object") + (f" and {plural(crowds[True], 'crowd')}" if crowds[True] else "")
    images, classes = plural(len(data.images), "image"), plural(len(data.classes), "class", "classes")
    print(f"{args.target}: {images}, {objects} read, {classes}")
    written = str(args.target)  # whose format is detected
    if args.to == "coco":
        json = args.target if json_only else args.target / "annotations.json"
        written = f"coco:{json}@{folder}"
    print_next(["check-data", written], ["train", written])
    return 0
