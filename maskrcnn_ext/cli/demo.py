"""``maskrcnn-ext demo``: ``maskrcnn-ext train`` on generated images."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

# Training images, validation images, overrides.
_FULL = (2000, 100, ["train.time=4"])
_QUICK = (64, 16, ["train.max_iter=20", "train.eval_period=10"])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument(
        "--output", type=Path, default=Path("output/demo"), help="folder for data and run (default: %(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="a smoke test of a minute; its AP is meaningless")


def run(args: argparse.Namespace) -> int:
    """Generates images, and trains on them."""
    num_train, num_val, overrides = _QUICK if args.quick else _FULL
    output: Path = args.output.resolve()
    shutil.rmtree(output / "run", ignore_errors=True)  # each demo starts from nothing

    print(f"generating {num_train} + {num_val} images", flush=True)
    from maskrcnn_ext.cli.train import main as train
    from maskrcnn_ext.data.tools.shapes import make_shapes

    files = (
        make_shapes(output / "data/train", num_images=num_train, seed=1),
        make_shapes(output / "data/val", num_images=num_val, seed=2),
    )
    data, val = (f"coco:{file}@{file.parent / 'images'}" for file in files)
    return train([data, "--val", val, "-o", str(output / "run"), *overrides])
