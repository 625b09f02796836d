"""``maskrcnn-ext parts``: the mask heads and RoI poolers, what they cost, and the line that swaps each in."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("name", nargs="?", help="one part: its page, with all its options")
    parser.add_argument("--channels", type=int, default=256, help="of the feature maps (default: %(default)s)")
    parser.add_argument("--num-classes", type=int, default=80, help="foreground classes (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Prints the tables, or one part's page."""
    from maskrcnn_ext.modeling.cost import head_cost, pooler_cost
    from maskrcnn_ext.modeling.parts import MASK_HEADS, POOLERS, find_part

    if args.name:
        print(find_part(args.name).describe())
        return 0
    heads = [(part, head_cost(part, channels=args.channels, num_classes=args.num_classes)) for part in MASK_HEADS]
    print(f"Mask heads, {args.channels} channels, {args.num_classes} classes, an image of 1216 x 800")
    rows: list[tuple[str, ...]] = [
        ("name", "parameters", "MACs/RoI", "MACs/image", "output", "paper", "mask AP, as published")
    ]
    for part, cost in heads:
        rows.append(
            (
                part.name,
                _short(cost.parameters),
                _short(cost.macs_per_roi),
                _short(cost.macs_per_image),
                f"{cost.output_size} x {cost.output_size}",
                part.paper,
                part.gain,
            )
        )
    _print_table(rows)
    print(f"\nRoI poolers, {args.channels} channels, 14 x 14 from four levels")
    rows = [("name", "parameters", "MACs/RoI", "paper", "AP, as published")]
    for part in POOLERS:
        cost = pooler_cost(part, channels=args.channels)
        rows.append((part.name, _short(cost.parameters), _short(cost.macs_per_roi), part.paper, part.gain))
    _print_table(rows)
    print("\nOverrides")
    for part in [*MASK_HEADS, *POOLERS]:
        print(f"  {part.override()}")
    return 0


def _short(number: int) -> str:
    """Three digits and a unit: 2.64 M."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.3g} {unit}"
    return str(number)


def _print_table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
