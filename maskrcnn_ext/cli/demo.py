"""``maskrcnn-ext demo``: from nothing to a trained, evaluated and shown Mask R-CNN, on generated images."""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

from maskrcnn_ext.errors import InputError

# Images for training and validation, and overrides of configs/domains/shapes.py.
_FULL: tuple[int, int, list[str]] = (2000, 100, [])
_QUICK = (64, 16, ["train.max_iter=20", "train.eval_period=20", "train.log_period=5"])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument(
        "--output", type=Path, default=Path("output/demo"), help="folder for everything (default: %(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="a smoke run of a minute; its AP means nothing")


def run(args: argparse.Namespace) -> int:
    """Generates, trains, evaluates, reports; prints the page's path and the AP."""
    num_train, num_val, overrides = _QUICK if args.quick else _FULL
    output: Path = args.output.resolve()
    _say(1, f"generating {num_train} + {num_val} images")
    from maskrcnn_ext.data.shapes import make_shapes

    train_json = make_shapes(output / "data/train", num_images=num_train, seed=1)
    val_json = make_shapes(output / "data/val", num_images=num_val, seed=2)

    _say(
        2, f"training on the {os.cpu_count()} processors of this machine or its GPU, through LazyConfig and the trainer"
    )
    from maskrcnn_ext.engine.main import main as train_net

    run_dir = output / "run"
    arguments = ["--config-file", "domains/shapes.py", "--num-gpus", "1"]
    arguments += [
        f"dataloader.{split}.dataset.names='coco:{file}@{file.parent / 'images'}'"
        for split, file in (("train", train_json), ("test", val_json))
    ]
    arguments += [f"train.output_dir='{run_dir}'", *overrides]
    start = time.monotonic()
    status = train_net(arguments)
    if status != 0:
        return status
    seconds = time.monotonic() - start

    _say(3, "writing the report")
    from maskrcnn_ext.report import read_run, write_report

    results = read_run(run_dir).results
    if not results:
        raise InputError(f"{run_dir} holds no evaluation results")
    page = write_report(run_dir, output / "report.html", title="Mask R-CNN on generated shapes")
    metrics = {name: round(value, 3) for name, value in results.items()}
    (output / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")

    print(f"\ntraining and evaluation took {seconds / 60:.1f} minutes")
    print(
        f"mask AP {results.get('segm/AP', 0.0):.1f}, box AP {results.get('bbox/AP', 0.0):.1f} on {num_val} held-out images"
    )
    print(f"metrics: {output / 'metrics.json'}\nreport:  {page}")
    return 0


def _say(step: int, text: str) -> None:
    print(f"[{step}/3] {text}", flush=True)
