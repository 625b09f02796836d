"""``maskrcnn-ext data-stats``: what the pixels of a data set are like, and the overrides that fit a model to them."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("name", help="a registered data set, or a string such as coco:annotations.json@images")
    parser.add_argument(
        "--image-format", default="BGR", help="BGR, RGB, L, or raw for all channels (default: %(default)s)"
    )
    parser.add_argument("--limit", type=int, default=1000, help="images to read, 0 for all (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of images (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Prints the table and the overrides; bad images and progress go to stderr."""
    from maskrcnn_ext.data import get_dataset_dicts
    from maskrcnn_ext.data.tools.stats import overrides, pixel_statistics, sample_records

    records = get_dataset_dicts(args.name, filter_empty=False)
    chosen = sample_records(records, args.limit, args.seed)
    found = pixel_statistics(_with_progress(chosen), args.image_format)
    for reason in found.bad:
        print(f"bad image: {reason}", file=sys.stderr)
    types = ", ".join(f"{dtype} ({count})" for dtype, count in sorted(found.dtypes.items()))
    print(f"images    {found.num_images} read, {len(found.bad)} bad, {len(records)} in {args.name}")
    print(f"type      {types}")
    print(f"height    {found.heights[0]} to {found.heights[1]}")
    print(f"width     {found.widths[0]} to {found.widths[1]}")
    print(f"channels  {len(found.mean)}, as image_format={args.image_format} gives them")
    print("  channel          mean           std           min           max")
    columns = zip(found.mean, found.std, found.minimum, found.maximum, strict=True)
    for channel, (mean, std, low, high) in enumerate(columns):
        print(f"  {channel:>7} {mean:>13.6g} {std:>13.6g} {low:>13.6g} {high:>13.6g}")
    print("\nOverrides for training from scratch:")
    print(f"  {overrides(found, args.image_format, pretrained=False)}")
    print("Overrides for the ImageNet weights that the configs begin with (8-bit photographs: leave both as they are):")
    print(f"  {overrides(found, args.image_format, pretrained=True)}")
    return 0


def _with_progress(records: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    told = time.monotonic()
    for index, record in enumerate(records, start=1):
        yield record
        if time.monotonic() - told > 5 or index == len(records):
            told = time.monotonic()
            print(f"{index} of {len(records)} images", file=sys.stderr)
