"""``maskrcnn-ext check-config``: what the stock training script would find out late, or never."""

from __future__ import annotations

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("--print", action="store_true", help="print the config, and where each value comes from")
    parser.add_argument("config", help="a LazyConfig, or the name of a shipped one")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="as for training; +KEY=VALUE adds a key, ~KEY deletes one"
    )


def run(args: argparse.Namespace) -> int:
    """Prints a line for each fault; returns 2 where there is one."""
    from detectron2.config import LazyConfig

    from maskrcnn_ext.config.check import check_config
    from maskrcnn_ext.config.overrides import apply
    from maskrcnn_ext.config.provenance import describe
    from maskrcnn_ext.engine.main import find_config
    from maskrcnn_ext.env import setup_environment

    setup_environment()
    file = find_config(args.config)
    found = check_config(apply(LazyConfig.load(file), args.overrides))
    if args.print:
        print(describe(file, args.overrides))
    for fault in found.faults:
        print(f"maskrcnn-ext check-config: error: {fault}", file=sys.stderr)
    if not found.faults:
        data = ", ".join(found.data) or "none"
        text = f"{args.config}: {found.calls} calls, {found.parameters / 1e6:.1f} M parameters, data {data}: no fault found"
        print(text, file=sys.stderr if args.print else sys.stdout)
    return 2 if found.faults else 0
