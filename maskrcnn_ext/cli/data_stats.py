"""``maskrcnn-ext data-stats``: measures the pixels of a data set, and prints the overrides that fit a model to them."""

from __future__ import annotations

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("name", help="a registered data set, or a string such as coco:annotations.json@images")
    parser.add_argument(
        "--image-format", default="BGR", help="BGR, RGB, L, or raw for all channels (default: %(default)s)"
    )
    parser.add_argument("--limit", type=int, default=1000, help="images to read, 0 for all (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice of images (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Prints the statistics and the overrides. Unreadable images and progress go to stderr."""
    from maskrcnn_ext.common.next_command import print_next
    from maskrcnn_ext.common.progress import track
    from maskrcnn_ext.common.tables import text_table
    from maskrcnn_ext.common.text import printable
    from maskrcnn_ext.data import get_dataset_dicts
    from maskrcnn_ext.data.tools.stats import overrides, pixel_statistics, sample_records

    records = get_dataset_dicts(args.name, filter_empty=False)
    chosen = sample_records(records, args.limit, args.seed)
    found = pixel_statistics(track(chosen, description="reading"), args.image_format)
    for reason in found.bad:
        print(f"bad image: {printable(reason)}", file=sys.stderr)
    types = ", ".join(f"{dtype} ({count})" for dtype, count in sorted(found.dtypes.items()))
    rows = [
        ["images", f"{found.num_images} read, {len(found.bad)} bad, {len(records)} in {args.name}"],
        ["type", types],
        ["height", f"{found.heights[0]} to {found.heights[1]}"],
        ["width", f"{found.widths[0]} to {found.widths[1]}"],
        ["channels", f"{len(found.mean)}, with image_format={args.image_format}"],
    ]
    print(f"{text_table(rows)}\n")
    columns = zip(found.mean, found.std, found.minimum, found.maximum, strict=True)
    channels = [[channel, *(f"{value:.6g}" for value in values)] for channel, values in enumerate(columns)]
    print(text_table(channels, ["channel", "mean", "std", "min", "max"], align=["right"] * 5))
    print("\nOverrides for training from scratch:")
    print(f"  {overrides(found, args.image_format, pretrained=False)}")
    print("Overrides for the ImageNet weights that the configs start from (8-bit photographs: keep both defaults):")
    print(f"  {overrides(found, args.image_format, pretrained=True)}")
    print_next(["train", args.name])
    return 0
