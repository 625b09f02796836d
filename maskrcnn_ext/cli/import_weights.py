"""``maskrcnn-ext import-weights``: weights of another framework as a checkpoint and the LazyConfig that it belongs to."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maskrcnn_ext.interop.weights.conversion import Converted

_SOURCES = ("torchvision", "mmdet", "matterport", "detectron2")
# Option -> the source that it belongs to.
_OPTIONS = {"style": "mmdet", "bn_eps": "torchvision", "matterport_config": "matterport"}

_WRITTEN = """\
what is written:
  OUT/model.pth     the weights, under Detectron2's names
  OUT/config.yaml   a LazyConfig to predict, evaluate and train with, under which the outputs are the source's own
  OUT/classes.json  the names of the classes, where no registered data set has the same
Nothing of SRC is run. A key that cannot be explained is an error.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _WRITTEN
    parser.add_argument("source", metavar="SRC", type=Path, help="the file: .pth, .pkl, .h5")
    parser.add_argument("--from", dest="framework", required=True, choices=_SOURCES, help="what has written it")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="the folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace what is in OUT")
    parser.add_argument("--classes", metavar="A,B,...", help="names of the classes, in the order of the outputs")
    parser.add_argument("--verbose", action="store_true", help="name every key")
    parser.add_argument("--style", choices=("caffe", "pytorch"), help="of an mmdet checkpoint without its config")
    parser.add_argument(
        "--bn-eps",
        type=float,
        metavar="EPS",
        help="epsilon of a torchvision backbone's normalisation: 0 if it was fine-tuned from weights COCO_V1 (default: 1e-5)",
    )
    parser.add_argument(
        "--matterport-config",
        type=Path,
        metavar="FILE",
        help="settings of a matterport model: .py (or my.py:Class), .json, or what Config.display() prints",
    )


def run(args: argparse.Namespace) -> int:
    """Converts, writes, and prints the report and what to do next."""
    from maskrcnn_ext.errors import InputError
    from maskrcnn_ext.interop.weights.conversion import write

    for option, framework in _OPTIONS.items():
        if getattr(args, option) is not None and args.framework != framework:
            raise InputError(f"--{option.replace('_', '-')} has no meaning for --from {args.framework}: leave it out")
    converted = _convert(args)
    if args.classes is not None:
        converted = dataclasses.replace(converted, classes=[name.strip() for name in args.classes.split(",")])
    files = write(converted, args.output, overwrite=args.overwrite)
    print("\n".join(converted.report.lines(args.verbose)))
    for file in files:
        print(file)
    data = "coco:ANNOTATIONS.json@IMAGES"
    print(f'predict:  maskrcnn_ext.Predictor("{files[1]}")("image.jpg")')
    print(
        f"train:    python scripts/train_net.py --config-file {files[1]} dataloader.train.dataset.names={data}", end=" "
    )
    print(f"dataloader.test.dataset.names={data}")
    return 0


def _convert(args: argparse.Namespace) -> Converted:
    from importlib import import_module

    own = {
        "torchvision": {"bn_eps": args.bn_eps},
        "mmdet": {"style": args.style},
        "matterport": {"config": args.matterport_config},
    }
    module = import_module(f"maskrcnn_ext.interop.weights.{args.framework}.convert")
    converted: Converted = module.convert(args.source, **own.get(args.framework, {}))
    return converted
