"""``maskrcnn-ext configs``: lists the shipped configs, or prints the path of one."""

from __future__ import annotations

import argparse
import ast

from maskrcnn_ext.config.zoo import config_path, list_configs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument(
        "name",
        nargs="?",
        help='print the path of this config, as in --config-file "$(maskrcnn-ext configs domains/nuclei.py)"',
    )


def run(args: argparse.Namespace) -> int:
    """Prints one path, or a table of names and titles."""
    from maskrcnn_ext.common.next_command import print_next
    from maskrcnn_ext.common.tables import text_table

    if args.name:
        print(config_path(args.name))
        return 0
    print(text_table([name, _title(name)] for name in list_configs()))
    print_next(["train-net", "--config-file", "domains/shapes.py"], ["configure", "DATA"])
    return 0


def _title(name: str) -> str:
    """Returns the first line of a config's docstring."""
    text = ast.get_docstring(ast.parse(config_path(name).read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]
