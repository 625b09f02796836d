"""``maskrcnn-ext import-weights``: converts weights of another framework to a checkpoint and its LazyConfig."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maskrcnn_ext.interop.weights.conversion import Converted

_SOURCES = ("torchvision", "mmdet", "matterport", "detectron2")
# Option -> the framework that it is valid for.
_OPTIONS = {"style": "mmdet", "bn_eps": "torchvision", "matterport_config": "matterport"}

_WRITTEN = """\
files that are written:
  OUT/model.pth     the weights, with Detectron2's names
  OUT/config.yaml   a LazyConfig for prediction, evaluation and training; the model has the same outputs as the source
  OUT/classes.json  the class names, unless a registered data set has the same
No code in SRC is executed. An unknown key is an error.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _WRITTEN
    parser.add_argument("source", metavar="SRC", type=Path, help="the file with the weights: .pth, .pkl, .h5")
    parser.add_argument(
        "--from", dest="framework", required=True, choices=_SOURCES, help="the framework that wrote SRC"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="the folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace files in OUT")
    parser.add_argument("--classes", metavar="A,B,...", help="class names, in the order of the model's outputs")
    parser.add_argument("--verbose", action="store_true", help="list every key")
    parser.add_argument(
        "--style", choices=("caffe", "pytorch"), help="style of an mmdet checkpoint that lacks its config"
    )
    parser.add_argument(
        "--bn-eps",
        type=float,
        metavar="EPS",
        help="epsilon of the normalisation in a torchvision backbone: 0 if fine-tuned from weights COCO_V1 (default: 1e-5)",
    )
    parser.add_argument(
        "--matterport-config",
        type=Path,
        metavar="FILE",
        help="settings of a matterport model: .py (or my.py:Class), .json, or the output of Config.display()",
    )


def run(args: argparse.Namespace) -> int:
    """Converts the weights, and prints the report and the next commands."""
    from maskrcnn_ext.common.next_command import print_next
    from maskrcnn_ext.common.text import printable
    from maskrcnn_ext.errors import InputError
    from maskrcnn_ext.interop.weights.conversion import write_model

    for option, framework in _OPTIONS.items():
        if getattr(args, option) is not None and args.framework != framework:
            raise InputError(f"--{option.replace('_', '-')} does not apply to --from {args.framework}: leave it out")
    converted = _convert(args)
    if args.classes is not None:
        converted = dataclasses.replace(converted, classes=[name.strip() for name in args.classes.split(",")])
    files = write_model(converted, args.output, overwrite=args.overwrite)
    print("\n".join(map(printable, converted.report.lines(args.verbose))))
    for file in files:
        print(file)
    data = "coco:ANNOTATIONS.json@IMAGES"
    names = [f"dataloader.{part}.dataset.names={data}" for part in ("train", "test")]
    print_next(
        ["predict", str(files[1]), "IMAGES", "-o", "predictions"],
        ["train-net", "--config-file", str(files[1]), *names],
    )
    return 0


def _convert(args: argparse.Namespace) -> Converted:
    from importlib import import_module

    options = {
        "torchvision": {"bn_eps": args.bn_eps},
        "mmdet": {"style": args.style},
        "matterport": {"config": args.matterport_config},
    }
    module = import_module(f"maskrcnn_ext.interop.weights.{args.framework}.convert")
    converted: Converted = module.convert(args.source, **options.get(args.framework, {}))
    return converted
