"""``maskrcnn-ext verify``: an exported model against the one that it was made from."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskrcnn_ext.errors import InputError

if TYPE_CHECKING:
    from maskrcnn_ext.inference.loading import Loaded

_LIMITS = {
    "box": "of a side of a box, in pixels",
    "score": "of a score",
    "mask_iou": "least IoU of a mask",
    "keypoint": "of a keypoint, in pixels",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.epilog = "exit status: 0 within the limits on every image, 1 beyond them, 2 wrong input"
    parser.add_argument("model", type=Path, help="what `maskrcnn-ext export` has written")
    parser.add_argument(
        "--against",
        nargs="+",
        required=True,
        metavar=("CONFIG", "WEIGHTS"),
        help="the model in PyTorch: a run's folder, or a config and, if they are not its own, weights",
    )
    parser.add_argument("--images", required=True, help="a folder, an image, or a data set such as nuclei_val")
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="take the first N images (default: all)")
    parser.add_argument(
        "--batch",
        type=int,
        default=1,
        metavar="N",
        help="run N images at once, if they follow each other and are of one size",
    )
    for name, text in _LIMITS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, metavar="LIMIT", help=f"{text}")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="overrides of the config"
    )


def run(args: argparse.Namespace) -> int:
    """Compares image by image, and prints what differs."""
    if args.batch < 1:
        raise InputError(f"--batch {args.batch}: expected at least 1")
    if len(args.against) > 2:
        raise InputError(f"--against {' '.join(args.against)}: expected a config and at most one file of weights")
    from maskrcnn_ext.inference.loading import load
    from maskrcnn_ext.interop.export.build_recipe import recipe_of
    from maskrcnn_ext.interop.export.runtimes import open_model
    from maskrcnn_ext.interop.export.verify import Limits, Reference, time_ratio, verify

    given = {name: getattr(args, name) for name in _LIMITS if getattr(args, name) is not None}
    runtime = open_model(args.model)
    if args.batch > 1 and not runtime.batched:
        raise InputError(f"--batch {args.batch}: {args.model} takes one image a call: export it with --batch")
    loaded = load(*args.against, device="cpu", overrides=args.set)
    recipe = recipe_of(loaded.model, loaded.mapper, loaded.classes)
    comparisons = []
    reference = Reference(loaded.model, loaded.mapper)
    for one in verify(runtime, reference, recipe, _images(loaded, args), Limits(**given), args.batch):
        print(one.line(), flush=True)
        comparisons.append(one)
    bad = sum(bool(one.faults) for one in comparisons)
    expected = sum(one.expected for one in comparisons)
    print(
        f"{len(comparisons)} images, {expected} objects: "
        + (f"{bad} images beyond the limits" if bad else "all within the limits")
        + f"; {time_ratio(comparisons):.2f} times the time of PyTorch"
    )
    if not expected:
        print("nothing was found: give images with objects, or lower model.roi_heads.box_predictor.test_score_thresh")
    return 1 if bad or not expected else 0


def _images(loaded: Loaded, args: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    from maskrcnn_ext.inference.loading import reader
    from maskrcnn_ext.inference.sources import find_inputs

    items = find_inputs([args.images]).items
    read = reader(loaded.mapper)
    return ((item.name, read(item.image)) for item in items[: args.limit or None])
