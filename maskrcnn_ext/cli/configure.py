"""``maskrcnn-ext configure``: plans a training from the data and the machine, and writes it as a config."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from maskrcnn_ext.errors import InputError

if TYPE_CHECKING:
    from maskrcnn_ext.config.plan import Plan
    from maskrcnn_ext.config.plan.sources import Prepared


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the data of a plan."""
    parser.add_argument(
        "data", help="a folder or file of labelled images, a registered name, or FORMAT:A@B such as coco:a.json@images"
    )
    parser.add_argument(
        "--val", metavar="DATA", help="data to validate on (default: a fifth of the images is held out)"
    )
    parser.add_argument(
        "--any-orientation",
        action="store_true",
        help="objects have no upright position, as from above or through a microscope: flip in both directions",
    )
    parser.add_argument(
        "--trial", action="store_true", help="try a step, and halve the batch until it fits (default: on a GPU only)"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    add_data_arguments(parser)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("my_config.py"),
        metavar="FILE",
        help="the config (default: %(default)s)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the config")


def run(args: argparse.Namespace) -> int:
    """Prints the plan, and writes the config. Warnings go to stderr."""
    if args.output.suffix != ".py":
        raise InputError(f"-o {args.output}: the name of a config ends with .py")
    if args.output.exists() and not args.overwrite:
        raise InputError(f"{args.output} exists: choose another -o, or add --overwrite")

    from maskrcnn_ext.common.text import printable
    from maskrcnn_ext.config.plan.sources import prepare_data

    data = prepare_data(args.data, args.val, args.output.with_suffix(""))
    found = write_plan(args, data, args.output, "configure")
    print(f"The plan is in {args.output}. Train it:\n")
    words = ["--config-file", str(args.output), f"train.output_dir=output/{args.output.stem}"]
    print(f"    maskrcnn-ext train-net {shlex.join(words)}\n")
    print("The same as overrides:\n")
    overrides = " ".join(shlex.quote(text) for text in found.overrides())
    print(f"    maskrcnn-ext train-net --config-file {found.base} {printable(overrides)}")
    return 0


def write_plan(args: argparse.Namespace, data: Prepared, config: Path, command: str) -> Plan:
    """Plans a training, writes its config, and prints the plan. Warnings go to stderr.

    Args:
        args: of :func:`add_data_arguments`.
        data: to train and to validate on.
        config: the file to write.
        command: that was called: "configure" or "train".
    """
    from maskrcnn_ext.common.files import write_atomic
    from maskrcnn_ext.common.text import printable
    from maskrcnn_ext.config.plan import inspect_machine, plan, write_config

    machine = inspect_machine()
    found = plan(data.train, machine, val=data.val, any_orientation=args.any_orientation)
    if machine.has_gpu or args.trial:
        from maskrcnn_ext.config.zoo import load_config
        from maskrcnn_ext.engine.trial_step import fitting_images

        tried = replace(machine, most_images=fitting_images(load_config(found.base, found.overrides())))
        found = plan(data.train, tried, val=data.val, any_orientation=args.any_orientation)
    write_atomic(config, write_config(found, command=command_line(args, command)))
    for note in data.notes:
        print(printable(note))
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    print(f"{printable(found.data)}: {found.summary}\n\n{_printable_lines(found.table(width))}\n")
    for warning in found.warnings:
        print(f"maskrcnn-ext {command}: warning: {printable(warning)}", file=sys.stderr)
    return found


def command_line(args: argparse.Namespace, command: str) -> str:
    """Returns the command line of a plan, without its output; paths are absolute, so that it means the same in any folder."""
    data = [os.path.abspath(name) if os.path.exists(name) else name for name in (args.data, args.val) if name]  # noqa: PTH100, PTH110
    words = ["maskrcnn-ext", command, data[0], *(["--val", data[1]] if args.val else [])]
    return shlex.join([*words, *(["--any-orientation"] if args.any_orientation else [])])


def _printable_lines(text: str) -> str:
    """Returns lines whose unprintable characters are escaped."""
    from maskrcnn_ext.common.text import printable

    return "\n".join(map(printable, text.splitlines()))
