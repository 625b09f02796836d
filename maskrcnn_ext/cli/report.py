"""``maskrcnn-ext report``: writes the HTML page of a finished run, or a comparison of several runs."""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from maskrcnn_ext.common.text import printable
from maskrcnn_ext.errors import InputError

if TYPE_CHECKING:
    from maskrcnn_ext.evaluation.truth import Truth
    from maskrcnn_ext.report.pictures import EvaluatedRun
    from maskrcnn_ext.report.run import Run

# Bootstrap resamples for the confidence intervals of differences: 18 s for 100 000 detections in 5000 images.
_RESAMPLES = 500


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument(
        "runs", metavar="RUN", nargs="+", type=Path, help="train.output_dir of a run; several runs are compared"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        help="the page to write (default: report.html in the folder of the run; comparison.html for several runs)",
    )
    parser.add_argument("--title", help="title of the page (default: the names of the folders)")
    parser.add_argument(
        "--threshold", type=float, default=0.5, help="lowest score of detections that count (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Writes the page and prints its path."""
    from maskrcnn_ext.common.next_command import print_next

    if len(args.runs) == 1:
        folder = args.runs[0]
        page = write_run_page(folder, args.output or folder / "report.html", title=args.title, threshold=args.threshold)
    else:
        page = write_comparison_page(
            args.runs, args.output or Path("comparison.html"), title=args.title, threshold=args.threshold
        )
    print(page)
    first = str(args.runs[0])
    print_next(
        ["predict", first, "IMAGES", "-o", "predictions"]
        if len(args.runs) == 1
        else ["compare", first, str(args.runs[1])]
    )
    return 0


def write_run_page(folder: Path, page: Path, *, title: str | None = None, threshold: float = 0.5) -> Path:
    """Evaluates the predictions of a run and writes its HTML page. A note on the page says what the run lacks.

    Args:
        folder: ``train.output_dir`` of the run.
        page: the HTML file to write.
        title: title of the page; the name of `folder` by default.
        threshold: lowest score of detections that count.

    Returns:
        `page`.
    """
    from maskrcnn_ext.report.page import write_report
    from maskrcnn_ext.report.run import read_run

    found = read_run(folder)
    evaluated, note = evaluate_with_interval(found, threshold)
    return write_report(found, evaluated, page, title=title or found.name, note=note)


def evaluate_with_interval(run: Run, threshold: float) -> tuple[EvaluatedRun | None, str]:
    """Returns the evaluation of :func:`evaluate_run` with the interval of its main AP; or None and the reason."""
    from maskrcnn_ext.evaluation.bootstrap import ap_interval

    truth, evaluated, note = evaluate_run(run, threshold)
    if truth is None or evaluated is None:
        return None, note
    _, low, high = ap_interval(truth, evaluated.results, task=evaluated.main_task, resamples=_RESAMPLES)
    return replace(evaluated, interval=None if math.isnan(low) else (low, high)), note


def evaluate_run(run: Run, threshold: float) -> tuple[Truth | None, EvaluatedRun | None, str]:
    """Evaluates the predictions of a run on the data set of its config.

    Returns:
        Ground truth, evaluation and ""; or None, None and the reason why the run cannot be evaluated.

    Raises:
        InputError: the data or the predictions exist but are broken.
    """
    from maskrcnn_ext.data.registry.catalog import load_dataset
    from maskrcnn_ext.data.registry.dicts import to_dicts
    from maskrcnn_ext.evaluation import summary
    from maskrcnn_ext.evaluation.results import load_results
    from maskrcnn_ext.evaluation.truth import load_truth
    from maskrcnn_ext.report.pictures import EvaluatedRun

    note = ""
    if len(run.test_data) != 1:
        note = f"its config names {len(run.test_data)} data sets for evaluation, expected one"
    elif not run.results_file.is_file():
        note = f"the predictions {run.results_file} are missing"
    else:
        try:
            truth, data = load_truth(run.test_data[0]), load_dataset(run.test_data[0])
        except InputError as error:
            note = str(error)
    if note:
        note = f"No error analysis and no images: {note}"
        print(f"note: {run.folder}: {printable(note)}", file=sys.stderr)
        return None, None, note
    truth = replace(truth, sigmas=run.keypoint_sigmas or truth.sigmas)
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


def write_comparison_page(folders: list[Path], page: Path, *, title: str | None = None, threshold: float = 0.5) -> Path:
    """Evaluates several runs and writes an HTML page that compares each with the first, if both used the same data.

    Args:
        folders: ``train.output_dir`` of each run.
        page: the HTML file to write.
        title: title of the page; the names of the folders by default.
        threshold: lowest score of detections that count.

    Returns:
        `page`.
    """
    from maskrcnn_ext.evaluation import bootstrap
    from maskrcnn_ext.report.comparison import ComparedRun, write_comparison
    from maskrcnn_ext.report.run import TASKS, read_run

    runs = [read_run(folder) for folder in folders]
    folder_names = [run.name for run in runs]
    names = folder_names if len(set(folder_names)) == len(folders) else [str(folder) for folder in folders]
    evaluations = [evaluate_run(run, threshold) for run in runs]
    notes = [f"{name}: {note}" for name, (_, _, note) in zip(names, evaluations, strict=True) if note]
    if len({run.iterations for run in runs}) > 1:
        each = ", ".join(f"{name} {run.iterations:,}" for name, run in zip(names, runs, strict=True))
        notes.append(
            f"The runs have trained for different numbers of iterations ({each}): a difference may be due to that."
        )
    entries = [
        ComparedRun(name, run, evaluated) for name, run, (_, evaluated, _) in zip(names, runs, evaluations, strict=True)
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
