"""``maskrcnn-ext report``: the HTML page of a finished run, or of several side by side."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from maskrcnn_ext.errors import InputError

if TYPE_CHECKING:
    from maskrcnn_ext.evaluation.truth import Truth
    from maskrcnn_ext.report.pictures import EvaluatedRun
    from maskrcnn_ext.report.run import Run

# Draws of images for the intervals of differences: 18 s for 100 000 detections in 5000 images.
_RESAMPLES = 500


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument(
        "runs", metavar="RUN", nargs="+", type=Path, help="a run's train.output_dir; several are compared"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        help="the page to write (default: report.html in the run's folder, comparison.html of several)",
    )
    parser.add_argument("--title", help="the page's title (default: the folders' names)")
    parser.add_argument("--threshold", type=float, default=0.5, help="least score in use (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Writes the page and prints its path."""
    if len(args.runs) == 1:
        folder = args.runs[0]
        page = report(folder, args.output or folder / "report.html", title=args.title, threshold=args.threshold)
    else:
        page = compare(args.runs, args.output or Path("comparison.html"), title=args.title, threshold=args.threshold)
    print(page)
    return 0


def report(folder: Path, page: Path, *, title: str | None = None, threshold: float = 0.5) -> Path:
    """Evaluates a run's predictions and writes its page; what the run lacks, the page lacks, and says so."""
    from maskrcnn_ext.report.page import write_report
    from maskrcnn_ext.report.run import read_run

    found = read_run(folder)
    _, evaluated, note = evaluate(found, threshold)
    return write_report(found, evaluated, page, title=title or folder.resolve().name, note=note)


def evaluate(run: Run, threshold: float) -> tuple[Truth | None, EvaluatedRun | None, str]:
    """Measures a run's predictions on the data set of its config.

    Returns:
        Ground truth, evaluation and ""; or None, None and why there are none.

    Raises:
        InputError: the data or the predictions are there and broken.
    """
    from maskrcnn_ext.data.registry.catalog import load_dataset
    from maskrcnn_ext.data.registry.dicts import to_dicts
    from maskrcnn_ext.evaluation import summary
    from maskrcnn_ext.evaluation.results import load_results
    from maskrcnn_ext.evaluation.truth import load_truth
    from maskrcnn_ext.report.pictures import EvaluatedRun

    note = ""
    if len(run.test_data) != 1:
        note = f"its config names {len(run.test_data)} data sets to evaluate on, one is needed"
    elif not run.results_file.is_file():
        note = f"there are no predictions, {run.results_file}"
    else:
        try:
            truth, data = load_truth(run.test_data[0]), load_dataset(run.test_data[0])
        except InputError as error:
            note = str(error)
    if note:
        note = f"No error analysis and no images: {note}"
        print(f"note: {run.folder}: {note}", file=sys.stderr)
        return None, None, note
    results = load_results(run.results_file, truth)
    evaluated = EvaluatedRun(
        summary.evaluate(truth, results, score_threshold=threshold),
        truth.images,
        truth.categories,
        truth.annotations,
        results,
        {record["image_id"]: record for record in to_dicts(data)},
        data.skeleton,
    )
    return truth, evaluated, ""


def compare(folders: list[Path], page: Path, *, title: str | None = None, threshold: float = 0.5) -> Path:
    """Evaluates several runs and writes the page that compares them: each with the first, on the data that both were evaluated on."""
    from maskrcnn_ext.evaluation import bootstrap
    from maskrcnn_ext.report.comparison import ComparedRun, write_comparison
    from maskrcnn_ext.report.run import TASKS, read_run

    runs = [read_run(folder) for folder in folders]
    short = [folder.resolve().name for folder in folders]
    names = short if len(set(short)) == len(folders) else [str(folder) for folder in folders]
    evaluations = [evaluate(one, threshold) for one in runs]
    notes = [f"{name}: {note}" for name, (_, _, note) in zip(names, evaluations, strict=True) if note]
    entries = [
        ComparedRun(name, one, own.summary["tasks"] if own else {})
        for name, one, (_, own, _) in zip(names, runs, evaluations, strict=True)
    ]
    differences = []
    truth, base, _ = evaluations[0]
    for entry, (_, other, _) in zip(entries[1:], evaluations[1:], strict=True):
        if truth is None or base is None or other is None:
            continue
        if entry.run.test_data != runs[0].test_data:
            notes.append(
                f"{entry.name} was evaluated on {entry.run.test_data[0]}, {names[0]} on {runs[0].test_data[0]}"
            )
            continue
        task = next(task for task in TASKS if task in entries[0].tasks and task in entry.tasks)
        found = bootstrap.compare(truth, base.results, other.results, task=task, resamples=_RESAMPLES)
        differences.append({**found, "name": entry.name})
    return write_comparison(entries, differences, page, title=title or " and ".join(names), notes=notes)
