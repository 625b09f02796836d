"""The command ``maskrcnn-ext``: one module for each subcommand, imported only when that subcommand runs."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from importlib import import_module
from io import TextIOWrapper
from typing import Any

from maskrcnn_ext import __version__
from maskrcnn_ext.common.stopping import STOPPED, Stopped, stoppable
from maskrcnn_ext.common.text import did_you_mean, one_line, printable
from maskrcnn_ext.common.torch_notice import torch_notice
from maskrcnn_ext.errors import InputError

# Command -> its description in `--help`, in groups. The module with its name (data-stats: data_stats) has add_arguments(parser) and
# run(args) -> exit status. Those of _OWN_PARSER have main(argv) -> exit status instead.
_GROUPS = {
    "start": {
        "doctor": "report what is installed, what is wrong, and the command that fixes it",
        "demo": "train, evaluate and show a Mask R-CNN on generated images, in minutes on a CPU",
        "train": "plan, train, evaluate and report: from labelled images to a model in one command",
    },
    "data": {
        "check-data": "list every fault of a data set, write a repaired copy, and suggest anchors that fit it",
        "data-stats": "measure the pixels of a data set, and print the overrides that fit a model to them",
        "browse-data": "draw a data set as stored, or as a config's augmentations change it",
        "convert": "write a data set in another format: COCO, YOLO, label images, or that of a label tool",
        "split": "divide a data set into train, val and test",
        "merge": "write several data sets as one, with a map of their classes",
        "make-points": "write a data set with labelled points instead of masks, to try point supervision",
    },
    "labels": {
        "select": "choose the images to label next: uncertain, and different from each other",
        "find-label-errors": "rank the labels that a model contradicts: missing and spurious objects, wrong classes, bad outlines",
    },
    "training": {
        "configs": "list the configs that ship with the package, or print the path of one",
        "parts": "list mask heads, RoI poolers and tested backbones: paper, cost, and the override that swaps each in",
        "configure": "plan a training from the data and the machine, and write it as a config",
        "check-config": "find faults of a config: misspelt keys, incompatible parts, unknown data, wrong class counts",
        "train-net": "train or evaluate a config, as scripts/train_net.py does",
        "tune": "train a config with other rates, scales, losses, augmentations and thresholds, and write the best",
        "yaml-to-lazy": "convert a yacs config of Mask R-CNN or a related model to a LazyConfig with the same weight layout",
    },
    "results": {
        "predict": "detect objects in images, folders, videos or a data set, and save results and pictures",
        "evaluate": "evaluate COCO results without the model: AP, errors, thresholds, calibration; or tracks: HOTA, sMOTSA",
        "compare": "compare two runs, and report whether their difference is significant",
        "report": "write the HTML page of a finished run, or of several side by side",
        "serve": "serve a model over HTTP: JSON, and a page to drop an image on",
    },
    "models": {
        "import-weights": "convert weights of torchvision, MMDetection, Matterport or Detectron2 to a checkpoint and its config",
        "export": "export a model for ONNX Runtime, OpenVINO, libtorch or OpenCV",
        "verify": "compare an exported model with its original, detection by detection",
        "benchmark": "measure time and memory against Detectron2 and every installed peer",
    },
}
COMMANDS = {name: text for group in _GROUPS.values() for name, text in group.items()}

# Commands that parse their own arguments, because flags and overrides may be mixed.
_OWN_PARSER = ("train", "train-net", "tune")
# Commands that can be stopped, and what follows.
_STOPPABLE = {
    "convert": "run the same command again",
    "merge": "run the same command again",
    "predict": "finished images are kept: the same command continues",
    "split": "run the same command again",
}


def main(argv: list[str] | None = None) -> int:
    """Runs a subcommand and returns its exit status. A mistake in the input is one line on stderr and status 2."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments and arguments[0] in _OWN_PARSER:
        return _run(arguments[0], lambda: _module(arguments[0]).main(arguments[1:]))
    if arguments and not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
        hint = did_you_mean(arguments[0], COMMANDS)
        print(
            f"maskrcnn-ext: error: no command {printable(arguments[0])!r}{f': {hint}' if hint else ''}; the commands are "
            f"{', '.join(COMMANDS)}",
            file=sys.stderr,
        )
        return 2
    if not arguments or arguments[0].startswith("-"):
        parser = argparse.ArgumentParser(
            prog="maskrcnn-ext",
            usage="maskrcnn-ext COMMAND ...",
            description="Mask R-CNN on Detectron2, by overrides.",
            epilog=_overview(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.add_argument("--version", action="version", version=f"maskrcnn-ext {__version__}")
        parser.parse_args(arguments)
        parser.print_help()
        return 2
    name, text = arguments[0], COMMANDS[arguments[0]]
    module = _module(name)  # those of the other commands are not imported
    parser = argparse.ArgumentParser(prog=f"maskrcnn-ext {name}", description=text[0].upper() + text[1:] + ".")
    module.add_arguments(parser)
    # Options may stand between inputs or overrides, which argparse cannot do beside subcommands.
    parse = parser.parse_args if name == "benchmark" else parser.parse_intermixed_args
    args = parse(arguments[1:])
    return _run(name, lambda: module.run(args))


def _overview() -> str:
    """Returns the commands in their groups, one a line."""
    lines = []
    for title, commands in _GROUPS.items():
        lines += [f"{title}:", *(f"    {name:<19}{text}" for name, text in commands.items()), ""]
    return "\n".join([*lines, "`maskrcnn-ext COMMAND --help` lists the options of a command."])


def _run(command: str, body: Callable[[], int]) -> int:
    """Runs the body of a subcommand, and reports errors of the input in one line."""
    # These warnings address authors of programs; users of this one cannot act on them.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch")
    warnings.filterwarnings("ignore", message="torch.meshgrid", category=UserWarning)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a file name may have characters that the terminal cannot encode
            stream.reconfigure(errors="backslashreplace")
    try:
        with stoppable() if command in _STOPPABLE else nullcontext(), torch_notice():
            status = body()
            sys.stdout.flush()
            return status
    except BrokenPipeError:  # the program that reads the output, such as `head`, has ended
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # or Python would flush into the pipe when it exits
        return 128 + 13  # as a program that SIGPIPE ends
    except InputError as error:
        return _report(command, str(error))
    except ImportError as error:
        return _report(command, f"{error}; `maskrcnn-ext doctor` says how to fix it")
    except Stopped as signal_name:
        print(f"maskrcnn-ext {command}: stopped by {signal_name}; {_STOPPABLE[command]}", file=sys.stderr)
        return STOPPED
    except OSError as error:
        return _report(command, f"{error.filename or 'a file'}: {error.strerror or one_line(error)}")
    except MemoryError as error:
        return _report(command, f"out of memory ({one_line(error)})")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _report(command: str, message: str) -> int:
    print(f"maskrcnn-ext {command}: error: {printable(message)}", file=sys.stderr)
    return 2


def _module(command: str) -> Any:
    return import_module(f"maskrcnn_ext.cli.{command.replace('-', '_')}")
