"""``maskrcnn-ext parts``: mask heads and RoI poolers, their cost, and the override that selects each."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("name", nargs="?", help="print the page of one part, with all its options")
    parser.add_argument("--channels", type=int, default=256, help="channels of the feature maps (default: %(default)s)")
    parser.add_argument("--num-classes", type=int, default=80, help="foreground classes (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Prints the tables, or the page of one part."""
    from maskrcnn_ext.common.tables import text_table
    from maskrcnn_ext.modeling.cost import HEAD_COLUMNS, POOLER_COLUMNS, head_rows, pooler_rows
    from maskrcnn_ext.modeling.parts import MASK_HEADS, POOLERS, find_part

    if args.name:
        print(find_part(args.name).describe())
        return 0
    print(f"Mask heads, {args.channels} channels, {args.num_classes} classes, an image of 1216 x 800\n")
    print(text_table(head_rows(channels=args.channels, num_classes=args.num_classes), HEAD_COLUMNS))
    print(f"\nRoI poolers, {args.channels} channels, 14 x 14 from four levels\n")
    print(text_table(pooler_rows(channels=args.channels), POOLER_COLUMNS))
    print("\nOverrides")
    for part in [*MASK_HEADS, *POOLERS]:
        print(f"  {part.override()}")
    return 0
