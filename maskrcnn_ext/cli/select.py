"""``maskrcnn-ext select``: chooses the images to label next."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskrcnn_ext.common.text import plural
from maskrcnn_ext.errors import InputError

if TYPE_CHECKING:
    from maskrcnn_ext.inference.predictor import Predictor
    from maskrcnn_ext.inference.selection import ScoredImage

_SIDE = 400  # pixels of a picture's longer side


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument(
        "run",
        metavar="RUN",
        help="folder of a run, also one of `train --folds`, whose models are compared; or a config",
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="images without labels: file, folder, glob, data set, or - for paths on stdin",
    )
    parser.add_argument(
        "--labelled",
        metavar="DATA",
        help="the data set or folder of images that are labelled already, such as the training data: they are left out, and the chosen "
        "ones differ from them",
    )
    parser.add_argument("--count", type=int, default=50, help="number of images to choose (default: %(default)s)")
    parser.add_argument("--device", help="such as cuda:1 or cpu (default: a GPU if available)")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("output/selected"),
        help="folder for selected.txt, scores.csv and index.html (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Writes the list, the scores and the page, and prints how to go on."""
    if args.count < 1:
        raise InputError(f"--count {args.count}: expected at least 1")
    from maskrcnn_ext.common.files import write_atomic
    from maskrcnn_ext.common.next_command import print_next
    from maskrcnn_ext.common.tables import csv_table
    from maskrcnn_ext.inference.loading import members_of
    from maskrcnn_ext.inference.predictor import Predictor
    from maskrcnn_ext.inference.selection import choose, image_features, score_images
    from maskrcnn_ext.inference.sources import find_inputs

    inputs = find_inputs(args.inputs, stdin=sys.stdin, outputs=args.output)
    if inputs.videos:
        raise InputError("select takes images: cut the video into frames first")
    labelled = find_inputs([args.labelled]).items if args.labelled else []
    known = {item.key for item in labelled}
    items = [item for item in inputs.items if item.key not in known]
    if len(items) < len(inputs.items):
        print(f"{len(inputs.items) - len(items)} of {plural(len(inputs.items), 'image')} left out: labelled already")
    if not items:
        raise InputError(f"all images are in {args.labelled}: none is left to label")
    members = [Predictor(path, device=args.device) for path in (members_of(args.run) or [args.run])]
    scored, failed = score_images(members, items)
    if not scored:
        raise InputError(f"no image can be read, such as {next(iter(failed))}: {next(iter(failed.values()))}")
    for file, error in failed.items():
        print(f"maskrcnn-ext select: warning: {file} is left out: {error}", file=sys.stderr)
    chosen = choose(scored, args.count, image_features(members[0], labelled))
    names = [str(one.item.image_id if inputs.data else one.item.file_name) for one in scored]
    ranking = sorted(range(len(scored)), key=lambda index: -scored[index].score)
    rows = [
        [names[index], index in chosen, round(one.score, 4), one.uncertainty, one.disagreement, one.objects]
        for index, one in ((index, scored[index]) for index in ranking)
    ]
    headers = ["image", "selected", "score", "uncertainty", "disagreement", "objects"]
    args.output.mkdir(parents=True, exist_ok=True)
    write_atomic(args.output / "scores.csv", csv_table(headers, rows).encode("utf-8", "backslashreplace"))
    text = "".join(f"{names[index]}\n" for index in chosen)
    write_atomic(args.output / "selected.txt", text.encode("utf-8", "surrogateescape"))
    page = _write_page(args.output / "index.html", members[0], [scored[index] for index in chosen], len(scored))
    print(
        f"{len(chosen)} of {plural(len(scored), 'image')}: {args.output / 'selected.txt'}\n{args.output / 'scores.csv'}\n{page}"
    )
    selected, labels = str(args.output / "selected.txt"), ["-o", str(args.output / "labels"), "--save", "cvat"]
    if inputs.data:
        print_next(["predict", args.run, f"{inputs.data}@list:{selected}", *labels])
    else:
        words = ["maskrcnn-ext", "predict", args.run, "-", *labels]
        redirected = f"{shlex.join(words)} < {shlex.quote(selected)}"
        print(f"\nNext, with the model's objects as a start:\n    {redirected}", file=sys.stderr)
    return 0


def _write_page(page: Path, predictor: Predictor, chosen: list[ScoredImage], number: int) -> Path:
    import cv2
    import numpy as np

    from maskrcnn_ext.report.pictures import embed_jpeg
    from maskrcnn_ext.report.template import write_page

    figures: list[dict[str, Any]] = []
    for one in chosen:
        found = predictor(one.item.image)
        picture = np.asarray(found.plot(threshold=0.3))[:, :, ::-1]
        scale = min(1.0, _SIDE / max(picture.shape[:2]))
        size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
        figures.append(
            {
                "data": embed_jpeg(cv2.resize(picture, size, interpolation=cv2.INTER_AREA)),
                "name": f"{len(figures) + 1}. {Path(one.item.file_name).name}, score {one.score:.1f}",
                "path": one.item.file_name,
                "width": picture.shape[1],
                "height": picture.shape[0],
                "count": one.objects,
            }
        )
    text = f"{len(chosen)} of {plural(number, 'image')}, in the order of their choice, with objects of a score of at least 0.3."
    return write_page(page, "browse_page.html", title="Images to label next", text=text, figures=figures)
