"""``maskrcnn-ext report``: the HTML page of a finished run."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("run", type=Path, help="the run's train.output_dir")
    parser.add_argument(
        "-o", "--output", type=Path, help="the page to write (default: report.html in the run's folder)"
    )
    parser.add_argument("--title", help="the page's title (default: the folder's name)")


def run(args: argparse.Namespace) -> int:
    """Writes the page and prints its path."""
    from maskrcnn_ext.report import write_report

    page = write_report(args.run, args.output or args.run / "report.html", title=args.title or args.run.resolve().name)
    print(page)
    return 0
