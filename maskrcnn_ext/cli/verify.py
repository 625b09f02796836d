"""``maskrcnn-ext verify``: compares an exported model with the original."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskrcnn_ext.common.text import plural
from maskrcnn_ext.errors import InputError

if TYPE_CHECKING:
    from maskrcnn_ext.inference.loading import LoadedModel

# Of single detections.
_LIMITS = {
    "box": "largest difference of a box side, in pixels",
    "score": "largest difference of a score",
    "mask_iou": "lowest IoU of a mask",
    "keypoint": "largest distance of a keypoint, in pixels",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.epilog = "exit status: 0 within the limits on every image, 1 outside them, 2 wrong input"
    parser.add_argument("model", type=Path, help="the file or folder that `maskrcnn-ext export` wrote")
    parser.add_argument(
        "--against",
        nargs="+",
        required=True,
        metavar=("CONFIG", "WEIGHTS"),
        help="the original: the folder of a run, or a config and, unless the config names them, weights",
    )
    parser.add_argument("--images", required=True, help="a folder, an image, or a data set such as nuclei_val")
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="use only the first N images (default: all)")
    parser.add_argument(
        "--batch",
        type=int,
        default=1,
        metavar="N",
        help="run up to N consecutive images of the same size at once",
    )
    for name, text in _LIMITS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, metavar="LIMIT", help=text)
    parser.add_argument(
        "--agreement",
        type=float,
        metavar="SHARE",
        help="instead of these: least share, from 0 to 1, of the detections of both models, weighted by score, that the other one has, "
        "too; the default for models in 8 bits, with 0.9",
    )
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="overrides of the config"
    )


def run(args: argparse.Namespace) -> int:
    """Compares image by image, and prints the differences."""
    if args.batch < 1:
        raise InputError(f"--batch {args.batch}: expected at least 1")
    if len(args.against) > 2:
        raise InputError(f"--against {' '.join(args.against)}: expected a config and at most one file of weights")
    from maskrcnn_ext.common.next_command import print_next
    from maskrcnn_ext.inference.loading import load_model
    from maskrcnn_ext.interop.export.recipe import build_recipe
    from maskrcnn_ext.interop.export.runtimes import open_model
    from maskrcnn_ext.interop.export.verify import Limits, Reference, agreement, default_limits, time_ratio, verify

    given = {name: getattr(args, name) for name in _LIMITS if getattr(args, name) is not None}
    if args.agreement is not None:
        if given or not 0 < args.agreement <= 1:
            raise InputError(
                f"--agreement {args.agreement}: expected a share above 0 and up to 1, without other limits"
            )
        given = {"agreement": args.agreement}
    runtime = open_model(args.model)
    if args.batch > 1 and not runtime.batched:
        raise InputError(f"--batch {args.batch}: {args.model} takes one image per call: export it with --batch")
    loaded = load_model(*args.against, device="cpu", overrides=args.set)
    recipe = build_recipe(loaded.model, loaded.mapper, loaded.classes)
    limits = Limits(**given) if given else default_limits(runtime)
    comparisons = []
    reference = Reference(loaded.model, loaded.mapper)
    for one in verify(runtime, reference, recipe, _images(loaded, args), limits, args.batch):
        print(one.line(), flush=True)
        comparisons.append(one)
    bad = sum(bool(one.faults) for one in comparisons)
    agreed = agreement(comparisons)
    if limits.agreement:
        verdict = f"the models agree on {agreed:.1%} of their detections, weighted by score; at least {limits.agreement:.1%} is expected"
    else:
        verdict = f"{plural(bad, 'image')} outside the limits" if bad else "all within the limits"
    expected = sum(one.expected for one in comparisons)
    print(
        f"{plural(len(comparisons), 'image')}, {plural(expected, 'object')}: {verdict}; {time_ratio(comparisons):.2f} x the time of PyTorch"
    )
    if not expected:
        print(
            "the model detected nothing: use images with objects, or lower model.roi_heads.box_predictor.test_score_thresh"
        )
    if bad or not expected or agreed < limits.agreement:
        return 1
    print_next(["benchmark", "export", *args.against, "--data", args.images])
    return 0


def _images(loaded: LoadedModel, args: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    from maskrcnn_ext.inference.loading import image_reader
    from maskrcnn_ext.inference.sources import find_inputs

    items = find_inputs([args.images]).items
    read = image_reader(loaded.mapper)
    return ((item.name, read(item.image)) for item in items[: args.limit or None])
