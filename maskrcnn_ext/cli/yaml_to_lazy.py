"""``maskrcnn-ext yaml-to-lazy``: converts a yacs config to a LazyConfig with the same model, weight layout and training."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE.py", help="the file to write (default: print the config)"
    )
    parser.add_argument(
        "config",
        help="a .yaml, or a name in Detectron2's model zoo: COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml",
    )
    parser.add_argument(
        "options", nargs="*", metavar="KEY VALUE", help="overrides of the yacs config, as for tools/train_net.py"
    )


def run(args: argparse.Namespace) -> int:
    """Writes or prints the LazyConfig."""
    from maskrcnn_ext.common.files import write_atomic
    from maskrcnn_ext.common.next_command import print_next
    from maskrcnn_ext.config.yacs.to_lazy import convert_to_lazy, load_yaml

    source = convert_to_lazy(load_yaml(args.config, args.options), args.config)
    if args.output is None:
        print(source, end="")
        return 0
    write_atomic(args.output, source)
    print(args.output)
    print_next(["check-config", str(args.output)])
    return 0
