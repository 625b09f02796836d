"""``maskrcnn-ext yaml-to-lazy``: a yacs config as a LazyConfig with the same model, weights layout and training."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.py", help="write it there (default: print it)")
    parser.add_argument(
        "config",
        help="a .yaml, or a name in Detectron2's model zoo: COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml",
    )
    parser.add_argument(
        "options", nargs="*", metavar="KEY VALUE", help="changes to the yaml, as for tools/train_net.py"
    )


def run(args: argparse.Namespace) -> int:
    """Writes or prints the LazyConfig."""
    from maskrcnn_ext.config.yacs.to_lazy import convert, load_yaml

    source = convert(load_yaml(args.config, args.options), args.config)
    if args.output is None:
        print(source, end="")
        return 0
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(source, encoding="utf-8")
    print(args.output)
    return 0
