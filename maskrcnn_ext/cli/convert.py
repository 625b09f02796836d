"""``maskrcnn-ext convert``: any data set that can be read, written in another format."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

_FORMATS = ("coco", "yolo", "labelme", "label-image")

_WRITTEN = """\
what is written:
  coco         DST/annotations.json and DST/images; of a DST that ends with .json the annotations alone
  yolo         DST/data.yaml, DST/images and DST/labels (outlines; boxes where there is nothing else)
  labelme      DST/*.json, each beside its image
  label-image  DST/images, DST/labels (16-bit PNG, a number an object; where two overlap, the later wins) and DST/classes.json
What a format cannot hold is counted on stderr. DST appears when all of it is written.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _WRITTEN
    parser.add_argument("source", metavar="SRC", help="a registered name, or FORMAT:A@B, as coco:a.json@images")
    parser.add_argument("target", metavar="DST", type=Path, help="what to make")
    parser.add_argument("--to", required=True, choices=_FORMATS, help="the format to write")
    parser.add_argument("--link", action="store_true", help="link to the images instead of copying them")
    parser.add_argument("--overwrite", action="store_true", help="replace DST")


def run(args: argparse.Namespace) -> int:
    """Converts and prints what was made."""
    from maskrcnn_ext.data.registry.catalog import load_dataset
    from maskrcnn_ext.data.writers import find_writer
    from maskrcnn_ext.data.writers.coco import write_coco_json
    from maskrcnn_ext.data.writers.files import check_plain_images, common_folder, staged
    from maskrcnn_ext.errors import InputError

    json_only = args.to == "coco" and args.target.suffix == ".json"
    if json_only and args.link:
        raise InputError("--link has no meaning for annotations alone; give a folder as DST")
    if args.target.exists() and not args.overwrite:  # said before the reading, which may take long
        raise InputError(f"{args.target} is there already: choose another place, or --overwrite it")
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
    for what, count in lost.items():
        print(f"maskrcnn-ext convert: warning: {count} {what}", file=sys.stderr)
    objects = sum(len(record.annotations) for record in data.images)
    print(f"{args.target}: {len(data.images)} images, {objects} objects read, {len(data.classes)} classes")
    if args.to == "coco":
        json = args.target if json_only else args.target / "annotations.json"
        print(f"use it as coco:{json}@{folder}")
    return 0
