"""``maskrcnn-ext configs``: what can be trained, and where the files lie."""

from __future__ import annotations

import argparse
import ast

from maskrcnn_ext.config.zoo import config_path, list_configs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument(
        "name",
        nargs="?",
        help='print this config\'s path, as in --config-file "$(maskrcnn-ext configs domains/nuclei.py)"',
    )


def run(args: argparse.Namespace) -> int:
    """Prints one path, or a table of names and titles."""
    if args.name:
        print(config_path(args.name))
        return 0
    names = list_configs()
    width = max(map(len, names))
    for name in names:
        title = ast.get_docstring(ast.parse(config_path(name).read_text(encoding="utf-8"))) or ""
        print(f"{name:<{width}}  {title.splitlines()[0] if title else ''}")
    return 0
