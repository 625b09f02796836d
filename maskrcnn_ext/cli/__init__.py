"""The command ``maskrcnn-ext``: one module a command, imported when that command runs."""

from __future__ import annotations

import argparse
import sys
import warnings
from importlib import import_module
from io import TextIOWrapper
from typing import Any

from maskrcnn_ext import __version__
from maskrcnn_ext.errors import InputError

# Command -> what `--help` says of it. The module of its name (data-stats: data_stats) has add_arguments(parser) and
# run(args) -> exit status.
COMMANDS = {
    "benchmark": "measure time and memory against Detectron2 and every peer that is installed",
    "browse-data": "draw a data set as stored, or as a config's augmentations make it",
    "check-config": "find a config's faults: misspelt keys, parts that do not fit, unknown data, wrong numbers of classes",
    "check-data": "list every fault of a data set, write a repaired copy, and suggest anchors that fit it",
    "compare": "measure two runs side by side, and say whether their difference is real",
    "configs": "list the configs that ship with the package, or print the path of one",
    "convert": "write a data set in another format: COCO, YOLO, labelme or label images",
    "data-stats": "measure the pixels of a data set, and print the overrides that fit a model to them",
    "demo": "train, evaluate and show a Mask R-CNN on generated images, in minutes on a CPU",
    "doctor": "say what is installed, what is wrong and the command that mends it",
    "evaluate": "measure COCO results without the model: AP, errors, thresholds, calibration",
    "export": "write a model for ONNX Runtime, OpenVINO, libtorch or OpenCV",
    "import-weights": "turn weights of torchvision, MMDetection, Matterport or Detectron2 into a checkpoint and its config",
    "parts": "list the mask heads and RoI poolers: paper, cost, and the override that swaps each in",
    "predict": "find the objects of images, folders, videos or a data set, and save results and pictures",
    "report": "write the HTML page of a finished run, or of several side by side",
    "split": "divide a data set into train, val and test",
    "verify": "compare an exported model with its original, detection by detection",
    "yaml-to-lazy": "turn a yacs config of Mask R-CNN and its kin into a LazyConfig with the same weights layout",
}


def main(argv: list[str] | None = None) -> int:
    """Runs a command; returns its exit status. A mistake in the input is one line on stderr and status 2."""
    arguments = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="maskrcnn-ext", description="Mask R-CNN on Detectron2, by overrides.")
    parser.add_argument("--version", action="version", version=f"maskrcnn-ext {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if arguments[:1] == [name]:  # the others' modules need not be imported
            _module(name).add_arguments(command)
    args = parser.parse_args(arguments)
    # torch speaks to those who write programs with it; whoever runs this one can do nothing about it.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch")
    warnings.filterwarnings("ignore", message="torch.meshgrid", category=UserWarning)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a file name may hold what the terminal's encoding does not
            stream.reconfigure(errors="backslashreplace")
    try:
        status: int = _module(args.command).run(args)
    except InputError as error:
        print(f"maskrcnn-ext {args.command}: error: {error}", file=sys.stderr)
        return 2
    except ImportError as error:
        print(
            f"maskrcnn-ext {args.command}: error: {error}; `maskrcnn-ext doctor` says how to mend it", file=sys.stderr
        )
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return status


def _module(command: str) -> Any:
    return import_module(f"maskrcnn_ext.cli.{command.replace('-', '_')}")
