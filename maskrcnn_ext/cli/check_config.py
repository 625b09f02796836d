"""``maskrcnn-ext check-config``: checks a config and its data without training."""

from __future__ import annotations

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("--print", action="store_true", help="print the config with the origin of each value")
    parser.add_argument(
        "--no-data", action="store_true", help="do not read the data sets, and do not look for their images"
    )
    parser.add_argument("config", help="a LazyConfig, or the name of a shipped one")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="as for training; +KEY=VALUE adds a key, ~KEY deletes one"
    )


def run(args: argparse.Namespace) -> int:
    """Prints one line for each fault of a config; returns 2 if it has any."""
    from maskrcnn_ext.common.next_command import print_next
    from maskrcnn_ext.config.check import check_config
    from maskrcnn_ext.config.data_sets import COUNTS
    from maskrcnn_ext.config.file import read_config_file
    from maskrcnn_ext.config.overrides import apply_overrides
    from maskrcnn_ext.config.provenance import describe_config, is_shipped_value
    from maskrcnn_ext.config.zoo import find_config
    from maskrcnn_ext.env import setup_environment

    setup_environment()
    file = find_config(args.config)
    cfg = apply_overrides(read_config_file(file), args.overrides)
    unset = [key for key in COUNTS if is_shipped_value(file, args.overrides, key)]
    report = check_config(cfg, read_data=not args.no_data, unset_counts=unset)
    if args.print:
        print(describe_config(file, args.overrides))
    for note in report.notes:
        print(
            f"maskrcnn-ext check-config: note: train-net sets {note}; Detectron2's script needs the override",
            file=sys.stderr,
        )
    for fault in report.faults:
        print(f"maskrcnn-ext check-config: error: {fault}", file=sys.stderr)
    if not report.faults:
        data = ", ".join(report.datasets) or "none"
        text = f"{args.config}: {report.num_nodes} calls, {report.num_parameters / 1e6:.1f} M parameters, data {data}: no fault found"
        print(text, file=sys.stderr if args.print else sys.stdout)
        print_next(["train-net", "--config-file", args.config, *args.overrides])
    return 2 if report.faults else 0
