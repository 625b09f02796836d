"""``maskrcnn-ext parts``: mask heads, RoI poolers and tested backbones, their cost, and the override that selects each."""

from __future__ import annotations

import argparse
import shlex


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("name", nargs="?", help="print the page of one part, with all its options")
    parser.add_argument("--channels", type=int, default=256, help="channels of the feature maps (default: %(default)s)")
    parser.add_argument("--num-classes", type=int, default=80, help="foreground classes (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Prints the tables, or the page of one part."""
    from maskrcnn_ext.common.next_command import print_next
    from maskrcnn_ext.common.tables import text_table
    from maskrcnn_ext.modeling import part_tables as tables
    from maskrcnn_ext.modeling.parts import MASK_HEADS, NETWORKS, OTHERS, POOLERS, find_part

    if args.name:
        part = find_part(args.name)
        print(part.describe())
        print_next(["train-net", "--config-file", "CONFIG.py", *shlex.split(part.override())])
        return 0
    costs = tables.RECORDED_COSTS
    if (args.channels, args.num_classes) != (tables.CHANNELS, tables.NUM_CLASSES):
        # Imported here, as it imports torch and Detectron2.
        from maskrcnn_ext.modeling.cost import count_costs

        costs = count_costs(channels=args.channels, num_classes=args.num_classes)
    print(f"Mask heads, {args.channels} channels, {args.num_classes} classes, an image of 800 x 1216\n")
    print(text_table(tables.head_rows(costs), tables.HEAD_COLUMNS))
    print(f"\nRoI poolers, {args.channels} channels, 14 x 14 from four levels\n")
    print(text_table(tables.pooler_rows(costs), tables.POOLER_COLUMNS))
    print("\nTested backbones of timm, without neck and heads, an image of 800 x 1216\n")
    print(text_table(tables.network_rows(), tables.NETWORK_COLUMNS))
    print("\nOverrides")
    overrides = [part.override() for part in [*MASK_HEADS, *POOLERS, *OTHERS]] + [net.override() for net in NETWORKS]
    print("\n".join(f"  {override}" for override in overrides))
    print_next(["parts", "DCTMaskHead"])
    return 0
