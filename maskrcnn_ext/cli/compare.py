"""``maskrcnn-ext compare``: compares the metrics of two runs, and reports whether their difference is significant."""

from __future__ import annotations

import argparse
from pathlib import Path

from maskrcnn_ext.cli.evaluate import add_metric_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("a", metavar="A", type=Path, help="COCO results, or the folder of a run (train.output_dir)")
    parser.add_argument("b", metavar="B", type=Path, help="the same for the run to compare with A")
    parser.add_argument(
        "truth", metavar="TRUTH", nargs="?", help="COCO annotations, or a data set (default: the data set of the runs)"
    )
    parser.add_argument(
        "--resamples", type=int, default=1000, help="number of bootstrap resamples of the images (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the resamples (default: %(default)s)")
    add_metric_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Prints one table for each task."""
    from maskrcnn_ext.evaluation.bootstrap import MIN_IMAGES, compare
    from maskrcnn_ext.evaluation.results import load_results
    from maskrcnn_ext.evaluation.summary import possible_tasks
    from maskrcnn_ext.evaluation.tables import metric_table
    from maskrcnn_ext.evaluation.truth import load_truth

    truth = load_truth(args.truth or _common_test_data(args.a, args.b))
    a, b = (load_results(_results_file(path), truth) for path in (args.a, args.b))
    for task in args.task or [task for task in possible_tasks(truth, a) if task in possible_tasks(truth, b)]:
        found = compare(
            truth,
            a,
            b,
            task=task,
            resamples=args.resamples,
            seed=args.seed,
            max_detections=args.max_detections,
            sigmas=args.sigmas,
        )
        rows = []
        for metric in found["metrics"]:
            values = ["-" if metric[key] is None else f"{metric[key]:.2f}" for key in ("a", "b")]
            changes = ["-" if metric[key] is None else f"{metric[key]:+.2f}" for key in ("difference", "low", "high")]
            verdict = "real" if metric["real"] else "not distinguishable"
            rows.append((metric["name"], *values, changes[0], f"{changes[1]} to {changes[2]}", verdict))
        print(f"{task}: {found['images']} images, {found['resamples']} resamples")
        print(metric_table(("metric", "A", "B", "B - A", "95 % interval", "difference"), rows) + "\n")
        if found["images"] < MIN_IMAGES:
            print(f"With fewer than {MIN_IMAGES} images, no difference can be called real.\n")
    return 0


def _results_file(path: Path) -> Path:
    return path / "inference" / "coco_instances_results.json" if path.is_dir() else path


def _common_test_data(*runs: Path) -> str:
    """Returns the data set that all runs were evaluated on.

    Raises:
        InputError: a folder is not a run, or the runs were not evaluated on one common data set.
    """
    from maskrcnn_ext.errors import InputError
    from maskrcnn_ext.report.run import read_run

    names = {}
    for run in runs:
        if not (run / "config.yaml").is_file():
            raise InputError(
                f"{run} is not the folder of a run with a config.yaml: add TRUTH, the ground truth of its results"
            )
        names[run] = read_run(run).test_data
    first, other = (names[run] for run in runs)
    if first != other:
        raise InputError(f"{runs[0]} was evaluated on {', '.join(first)}, {runs[1]} on {', '.join(other)}: add TRUTH")
    if len(first) != 1:
        raise InputError(f"the runs were evaluated on {len(first)} data sets ({', '.join(first)}): add TRUTH")
    return first[0]
