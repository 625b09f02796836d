"""``maskrcnn-ext merge``: writes several data sets as one, with a map of their classes."""

from __future__ import annotations

import argparse
from pathlib import Path

from maskrcnn_ext.common.text import plural
from maskrcnn_ext.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument(
        "sources", nargs="+", metavar="SRC", help="registered names, paths, or FORMAT:A@B such as coco:a.json@images"
    )
    parser.add_argument(
        "--map",
        type=Path,
        metavar="YAML",
        help="the classes of the result: `classes: [names]`, `map: {old: new}` (default: those of all, by name)",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="DST",
        help="the folder to write, with annotations.json and images/; only the annotations if DST ends with .json",
    )
    parser.add_argument("--link", action="store_true", help="link to the images instead of copying them")
    parser.add_argument("--overwrite", action="store_true", help="replace DST")


def run(args: argparse.Namespace) -> int:
    """Merges the data sets, and prints the size of the result."""
    json_only = args.output.suffix == ".json"
    if len(args.sources) < 2:
        raise InputError("merge needs two data sets or more; maskrcnn-ext convert writes one in another format")
    if json_only and args.link:
        raise InputError("--link needs images: give a folder as DST")
    if args.output.exists() and not args.overwrite:  # checked before reading, which may take long
        raise InputError(f"{args.output} exists: choose another DST, or add --overwrite")
    from maskrcnn_ext.common.next_command import print_next
    from maskrcnn_ext.data.registry.catalog import load_dataset
    from maskrcnn_ext.data.registry.class_map import read_class_map
    from maskrcnn_ext.data.tools.merge import merge
    from maskrcnn_ext.data.writers.coco import write_coco, write_coco_json
    from maskrcnn_ext.data.writers.files import check_plain_images, common_folder, staged

    class_map = read_class_map(args.map) if args.map else None
    data = merge([load_dataset(source) for source in args.sources], class_map)
    files = [Path(record.file_name).absolute() for record in data.images]
    with staged(args.output, overwrite=args.overwrite, sources=files) as partial:
        if json_only:
            check_plain_images(data)
            folder = common_folder(data)
            write_coco_json(data, partial, [file.relative_to(folder).as_posix() for file in files])
        else:
            folder = args.output / "images"
            write_coco(data, partial, link=args.link)
    objects = sum(len(record.annotations) for record in data.images)
    partly = sum(record.labelled_classes is not None for record in data.images)
    print(
        f"{args.output}: {plural(len(data.images), 'image')}, {plural(objects, 'object')}, "
        f"{plural(len(data.classes), 'class', 'classes')}: {', '.join(data.classes)}"
    )
    if partly:
        print(
            f"images that label only some of the classes: {partly}; train with PartialROIHeads, or the others are background there "
            "(docs/labels.md)"
        )
    name = f"coco:{args.output if json_only else args.output / 'annotations.json'}@{folder}"
    print_next(["check-data", name], ["train", name])
    return 0
