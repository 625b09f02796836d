"""``maskrcnn-ext browse-data``: draws images of a data set, as stored or after the augmentations of a config."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskrcnn_ext.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from maskrcnn_ext.data.tools.browse import Seen

_SIDE = 400  # pixels of a picture's longer side
_CAPTION = 22  # pixels of the line below it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("name", help="a registered data set, or a string such as coco:annotations.json@images")
    parser.add_argument(
        "--config",
        nargs="+",
        metavar=("CONFIG", "KEY=VALUE"),
        help="a LazyConfig and overrides: show the images as its training loader returns them",
    )
    parser.add_argument("--num", type=int, default=16, help="number of images (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the choice and the augmentations (default: %(default)s)"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("output/browse"),
        help="folder for grid.png and index.html (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Writes the grid and the page, and prints their paths."""
    if args.num < 1:
        raise InputError(f"--num {args.num}: expected at least 1")
    import cv2

    if args.config:
        from maskrcnn_ext.config.zoo import load_config
        from maskrcnn_ext.data.tools.browse import browse_training

        cfg = load_config(args.config[0], args.config[1:])
        if "dataloader" in cfg and "train" in cfg.dataloader:
            cfg.dataloader.train.dataset.names = args.name
        samples = browse_training(cfg, num=args.num, seed=args.seed)
        text = f"As the training loader of {' '.join(args.config)} returns it, seed {args.seed}."
    else:
        from maskrcnn_ext.data.tools.browse import browse_stored

        samples = browse_stored(args.name, num=args.num, seed=args.seed)
        text = f"As stored; images chosen with seed {args.seed}."
    if not samples:
        raise InputError(f"data set {args.name} has no images")

    from detectron2.data import MetadataCatalog

    from maskrcnn_ext.common.files import write_atomic
    from maskrcnn_ext.common.next_command import print_next
    from maskrcnn_ext.report.template import write_page

    classes = list(MetadataCatalog.get(args.name).get("thing_classes", []))
    pictures = [_picture(sample, classes) for sample in samples]
    figures = _figures(pictures, samples)
    page = write_page(args.output / "index.html", "browse_page.html", title=args.name, text=text, figures=figures)
    grid = args.output / "grid.png"
    write_atomic(grid, cv2.imencode(".png", _grid(pictures, samples))[1].tobytes())
    print(f"{grid}\n{page}")
    print_next(["train", args.name])
    return 0


def _picture(sample: Seen, classes: list[str]) -> np.ndarray:
    import cv2

    from maskrcnn_ext.report.draw import DrawnObject, draw_objects, palette

    by_class = len(classes) > 1  # with one class, each object has its own colour
    colors = [palette(category if by_class else index) for index, category in enumerate(sample.classes)]
    items = [
        DrawnObject(segmentation, (box[0], box[1], box[2], box[3]), classes[category] if by_class else "", color)
        for segmentation, box, category, color in zip(
            sample.segmentations, sample.boxes.tolist(), sample.classes, colors, strict=True
        )
    ]
    outlines = [DrawnObject(None, item.box, "", item.color) for item in items if item.segmentation is not None]
    scale = _SIDE / max(sample.image.shape[:2])
    canvas = draw_objects(sample.image, [*outlines, *items], scale=scale)
    for points, color in zip([] if sample.keypoints is None else sample.keypoints, colors, strict=False):
        for x, y, visibility in points:
            if visibility:  # a ring if hidden
                center = (round(x * scale), round(y * scale))
                cv2.circle(canvas, center, 3, color, -1 if visibility == 2 else 1, cv2.LINE_AA)
    return canvas


def _grid(pictures: list[np.ndarray], samples: list[Seen]) -> np.ndarray:
    """Arranges pictures in a nearly square grid, each with its file name below."""
    import math

    import cv2
    import numpy as np

    from maskrcnn_ext.report.draw import drawable

    columns = math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    grid = np.full((rows * (_SIDE + _CAPTION), columns * _SIDE, 3), 255, np.uint8)
    for index, (picture, sample) in enumerate(zip(pictures, samples, strict=True)):
        y, x = (index // columns) * (_SIDE + _CAPTION), (index % columns) * _SIDE
        height, width = picture.shape[:2]
        grid[y : y + height, x : x + width] = picture
        name = Path(sample.file_name).name
        caption = drawable(f"{name if len(name) <= 32 else '...' + name[-29:]}: {len(sample.classes)}")
        cv2.putText(grid, caption, (x + 3, y + _SIDE + 15), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return grid


def _figures(pictures: list[np.ndarray], samples: list[Seen]) -> list[dict[str, Any]]:
    import base64

    import cv2

    figures = []
    for picture, sample in zip(pictures, samples, strict=True):
        data = base64.b64encode(cv2.imencode(".png", picture)[1].tobytes()).decode("ascii")
        figures.append(
            {
                "data": f"data:image/png;base64,{data}",
                "name": Path(sample.file_name).name,
                "path": sample.file_name,
                "width": sample.image.shape[1],
                "height": sample.image.shape[0],
                "count": len(sample.classes),
            }
        )
    return figures
