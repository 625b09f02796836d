"""``maskrcnn-ext split``: divides a data set, and writes one COCO file for each part."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from maskrcnn_ext.common.text import plural
from maskrcnn_ext.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument(
        "source", metavar="SRC", help="a registered name, a path, or FORMAT:A@B such as coco:a.json@images"
    )
    parser.add_argument("target", metavar="DST", type=Path, help="the folder for train.json, val.json and test.json")
    parser.add_argument("--val", type=float, required=True, metavar="SHARE", help="share of the images, such as 0.2")
    parser.add_argument(
        "--test", type=float, default=0.0, metavar="SHARE", help="share of the images (default: no test.json)"
    )
    parser.add_argument(
        "--by",
        choices=("image", "group"),
        default="image",
        help="group: all images of a group go to one part; a group is a folder, or a match of --group-regex",
    )
    parser.add_argument(
        "--group-regex",
        metavar="REGEX",
        help="with --by group: searched in the path of an image; its first capturing group names the group, as in '(patient[0-9]+)_'",
    )
    parser.add_argument("--stratify", action="store_true", help="also divide every class by these shares")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random choice (default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace DST")


def run(args: argparse.Namespace) -> int:
    """Splits the data set, and prints each part with the string that names it in a config."""
    shares = _shares(args)
    if args.group_regex is not None and args.by != "group":
        raise InputError("--group-regex needs --by group")
    if args.target.exists() and not args.overwrite:  # checked before reading, which may take long
        raise InputError(f"{args.target} exists: choose another DST, or add --overwrite")

    from maskrcnn_ext.common.next_command import print_next
    from maskrcnn_ext.common.text import short_list
    from maskrcnn_ext.data.registry.catalog import load_dataset, split_note
    from maskrcnn_ext.data.tools.split import group_names, split_images
    from maskrcnn_ext.data.writers.coco import write_coco_json
    from maskrcnn_ext.data.writers.files import check_plain_images, common_folder, staged

    data = load_dataset(args.source)
    check_plain_images(data)
    folder = common_folder(data)
    paths = [Path(record.file_name).absolute() for record in data.images]
    named = sorted(
        zip([path.relative_to(folder).as_posix() for path in paths], data.images, strict=True),
        key=lambda pair: (pair[0], str(pair[1].image_id)),
    )
    names, data.images = [name for name, _ in named], [record for _, record in named]
    groups = group_names(names, by=args.by, pattern=args.group_regex)
    parts = split_images(data.images, groups, shares, seed=args.seed, stratify=args.stratify)
    records = data.images
    with staged(args.target, overwrite=args.overwrite, sources=paths) as partial:
        partial.mkdir()
        for part, indices in parts.items():
            data.images = [records[index] for index in indices]
            write_coco_json(data, partial / f"{part}.json", [names[index] for index in indices])
    if note := split_note(args.source):
        print(note)
    known = {a.category for record in records for a in record.annotations}
    for part, indices in parts.items():
        counts = Counter(a.category for index in indices for a in records[index].annotations)
        print(
            f"{part}: {plural(len(indices), 'image')} ({len(indices) / len(names):.1%}), {plural(counts.total(), 'object')}  "
            f"coco:{args.target / part}.json@{folder}"
        )
        missing = [data.classes[category] for category in sorted(known - set(counts))]
        if missing:
            print(f"maskrcnn-ext split: warning: {part} has no {short_list(missing)}", file=sys.stderr)
    written = {part: f"coco:{args.target / part}.json@{folder}" for part in parts}
    print_next(["train", written["train"], *(["--val", written["val"]] if "val" in written else [])])
    return 0


def _shares(args: argparse.Namespace) -> dict[str, float]:
    for name, share in (("--val", args.val), ("--test", args.test)):
        if not 0 <= share < 1:
            raise InputError(f"{name} {share} is not a share from 0 to 1")
    if args.val + args.test >= 1:
        raise InputError(f"--val {args.val} and --test {args.test} leave nothing to train on")
    shares = {"train": 1 - args.val - args.test, "val": args.val, "test": args.test}
    return {part: share for part, share in shares.items() if share}
