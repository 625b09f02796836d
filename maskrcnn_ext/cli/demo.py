"""``maskrcnn-ext demo``: trains, evaluates and shows a Mask R-CNN on generated images."""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from maskrcnn_ext.common.progress import Progress
from maskrcnn_ext.errors import InputError

# Training images, validation images, iterations.
_FULL = (2000, 100, 540)
_QUICK = (64, 16, 20)
_POLL_SECONDS = 0.5  # between two reads of the training's metrics


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("output/demo"),
        help="folder for data, run and report (default: %(default)s)",
    )
    parser.add_argument("--quick", action="store_true", help="a smoke test of two minutes; its AP is meaningless")


def run(args: argparse.Namespace) -> int:
    """Generates images, trains, evaluates and writes the report; prints AP and paths."""
    num_train, num_val, iterations = _QUICK if args.quick else _FULL
    output: Path = args.output.resolve()
    run_dir = output / "run"
    shutil.rmtree(run_dir, ignore_errors=True)  # else the curves would continue those of an earlier demo

    print(f"[1/3] generating {num_train} + {num_val} images", flush=True)
    from maskrcnn_ext.data.tools.shapes import make_shapes

    train_json = make_shapes(output / "data/train", num_images=num_train, seed=1)
    val_json = make_shapes(output / "data/val", num_images=num_val, seed=2)

    print(f"[2/3] training for {iterations} iterations, then evaluating", flush=True)
    overrides = [
        f"dataloader.train.dataset.names='coco:{train_json}@{train_json.parent / 'images'}'",
        f"dataloader.test.dataset.names='coco:{val_json}@{val_json.parent / 'images'}'",
        f"train.output_dir='{run_dir}'",
        f"train.max_iter={iterations}",
        f"train.eval_period={math.ceil(iterations / 2)}",
        f"train.log_period={max(5, iterations // 25)}",
    ]
    start = time.monotonic()
    _train(["--config-file", "domains/shapes.py", *overrides], run_dir, iterations)
    seconds = time.monotonic() - start

    print("[3/3] writing the report", flush=True)
    from maskrcnn_ext.cli.report import write_run_page
    from maskrcnn_ext.common.files import write_atomic
    from maskrcnn_ext.report.run import read_run

    page = write_run_page(run_dir, output / "report.html", title="Mask R-CNN on generated shapes")
    # A model without any detections has no results: its AP is 0.
    results = {"segm/AP": 0.0, "bbox/AP": 0.0, **read_run(run_dir).results}
    metrics = {name: None if math.isnan(value) else round(value, 3) for name, value in results.items()}
    write_atomic(output / "metrics.json", json.dumps(metrics, indent=2) + "\n")

    print(f"\ntraining and evaluation took {seconds / 60:.1f} minutes on {os.cpu_count()} processors")
    print(f"mask AP {results['segm/AP']:.1f}, box AP {results['bbox/AP']:.1f} on {num_val} held-out images")
    print(f"metrics: {output / 'metrics.json'}\nreport:  {page}")
    return 0


def _train(arguments: list[str], run_dir: Path, iterations: int) -> None:
    """Trains in a separate process with its log in a file, and shows the progress."""
    run_dir.mkdir(parents=True)
    log = run_dir / "console.txt"
    num_seen = 0
    with log.open("w") as console, Progress(iterations, description="training", unit="iteration") as progress:
        command = [sys.executable, "-m", "maskrcnn_ext.engine.main", *arguments]
        process = subprocess.Popen(command, stdout=console, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                num_seen = _show_metrics(run_dir / "metrics.json", num_seen, progress)
                time.sleep(_POLL_SECONDS)
        finally:
            process.terminate()  # so that Ctrl-C stops the training as well; no effect on a finished process
        _show_metrics(run_dir / "metrics.json", num_seen, progress)
    if process.returncode != 0:
        last = ([line for line in log.read_text().splitlines() if line.strip()] or ["no output"])[-1]
        raise InputError(f"the training ended with status {process.returncode}: {last} (the whole log: {log})")


def _show_metrics(file: Path, num_seen: int, progress: Progress) -> int:
    """Shows the iterations, losses and evaluations in the metrics file after the first `num_seen` entries.

    Returns:
        The number of entries in the file.
    """
    if not file.is_file():
        return num_seen
    lines = [line for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]
    for scalars in map(json.loads, lines[num_seen:]):
        if "total_loss" in scalars:
            progress.step(scalars["iteration"] + 1 - progress.done, figures=f"loss {scalars['total_loss']:.3g}")
        if "segm/AP" in scalars:
            print(f"      evaluated: mask AP {scalars['segm/AP']:.1f}, box AP {scalars['bbox/AP']:.1f}", flush=True)
    return len(lines)
