"""``maskrcnn-ext make-points``: writes a data set with points instead of masks, to try point supervision."""

from __future__ import annotations

import argparse
from pathlib import Path

from maskrcnn_ext.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument(
        "source", metavar="SRC", help="a registered name, a path, or FORMAT:A@B such as coco:a.json@images"
    )
    parser.add_argument("target", metavar="DST", type=Path, help="the COCO file to write")
    parser.add_argument("--count", type=int, default=10, help="points of an object (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the points (default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace DST")


def run(args: argparse.Namespace) -> int:
    """Writes the file, and prints the training that uses it."""
    if args.target.suffix != ".json":
        raise InputError(f"{args.target}: expected the name of a COCO file, such as points.json")
    if args.target.exists() and not args.overwrite:
        raise InputError(f"{args.target} exists: choose another DST, or add --overwrite")

    from maskrcnn_ext.common.next_command import print_next
    from maskrcnn_ext.common.text import plural
    from maskrcnn_ext.data.registry.catalog import load_dataset
    from maskrcnn_ext.data.tools.points import make_points
    from maskrcnn_ext.data.writers.coco import write_coco_json
    from maskrcnn_ext.data.writers.files import check_plain_images, common_folder, staged

    data = load_dataset(args.source)
    check_plain_images(data)
    folder = common_folder(data)
    paths = [Path(record.file_name).absolute() for record in data.images]
    pointed = make_points(data, args.count, seed=args.seed)
    with staged(args.target, overwrite=args.overwrite, sources=paths) as partial:
        write_coco_json(pointed, partial, [path.relative_to(folder).as_posix() for path in paths])
    found = sum(bool(a.points) for record in pointed.images for a in record.annotations)
    print(f"{plural(found, 'object')} with {plural(args.count, 'point')} each: {args.target}")
    print_next(
        [
            "train-net",
            "--config-file",
            "mask_rcnn_r50_fpn_1x.py",
            f"dataloader.train.dataset.names=coco:{args.target}@{folder}",
            "dataloader.train.mapper.missing_masks=box-only",
            "model.roi_heads.mask_head._target_=maskrcnn_ext.FCNMaskHead",
            "model.roi_heads.mask_head.mask_loss=points",
        ]
    )
    return 0
