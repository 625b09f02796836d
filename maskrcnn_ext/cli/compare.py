"""``maskrcnn-ext compare``: compares the metrics of two models, and reports whether their difference is significant."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from maskrcnn_ext.cli.evaluate import add_metric_arguments

if TYPE_CHECKING:
    from maskrcnn_ext.evaluation.results import Results
    from maskrcnn_ext.evaluation.truth import Truth

_RESULTS = Path("inference") / "coco_instances_results.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument(
        "a",
        metavar="A",
        type=Path,
        help="COCO results, the folder of a run (train.output_dir), or a folder of runs, one for each seed",
    )
    parser.add_argument(
        "b",
        metavar="B",
        type=Path,
        help="the same for the model to compare with A; folders of seeds must have the same names",
    )
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
    from maskrcnn_ext.common.next_command import print_next
    from maskrcnn_ext.common.text import plural
    from maskrcnn_ext.evaluation.bootstrap import MIN_IMAGES, compare_seeds
    from maskrcnn_ext.evaluation.results import load_results
    from maskrcnn_ext.evaluation.summary import possible_tasks
    from maskrcnn_ext.evaluation.tables import metric_table
    from maskrcnn_ext.evaluation.truth import load_truth

    seeds = _common_seeds(args.a, args.b)
    paths = [path / seed for path in (args.a, args.b) for seed in seeds]
    truth = load_truth(args.truth or _common_test_data(*paths))
    loaded = [load_results(_results_file(path), truth) for path in paths]
    for task in args.task or [task for task in possible_tasks(truth, loaded[0]) if _all_have(task, truth, loaded)]:
        found = compare_seeds(
            truth,
            loaded[: len(seeds)],
            loaded[len(seeds) :],
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
            verdict = "real" if metric["real"] else f"undecided: {metric['reason']}"
            rows.append((metric["name"], *values, changes[0], f"{changes[1]} to {changes[2]}", verdict))
        of_seeds = f" and seeds ({', '.join(seeds)})" if seeds != [""] else ""
        print(f"A is {args.a}, B is {args.b}")
        print(
            f"{task}: {plural(found['images'], 'image')}, {plural(found['resamples'], 'resample')} of images{of_seeds}"
        )
        print(metric_table(("metric", "A", "B", "B - A", "95 % interval", "difference"), rows) + "\n")
        if seeds != [""]:
            for label, column in (("A", 0), ("B", 1)):
                values = [pair[column] for pair in found["metrics"][0]["seeds"]]
                print(f"AP of {label}, each seed: {', '.join('-' if v is None else f'{v:.2f}' for v in values)}")
            print()
        if found["images"] < MIN_IMAGES:
            print(f"With fewer than {MIN_IMAGES} images, no difference can be called real.\n")
    if args.a.is_dir() and args.b.is_dir():
        print_next(["report", str(args.a / seeds[0]), str(args.b / seeds[0])])
    else:
        print_next(["evaluate", str(_results_file(args.b)), args.truth, "-o", "metrics"])
    return 0


def _all_have(task: str, truth: Truth, loaded: Sequence[Results]) -> bool:
    from maskrcnn_ext.evaluation.summary import possible_tasks

    return all(task in possible_tasks(truth, results) for results in loaded)


def _common_seeds(a: Path, b: Path) -> list[str]:
    """Returns the names of the runs inside both folders; [""] if A and B are runs or files themselves.

    Raises:
        InputError: one is a run and the other a folder of runs, or the runs have different names.
    """
    from maskrcnn_ext.errors import InputError

    seeds = [
        sorted(child.parent.parent.name for child in path.glob(f"*/{_RESULTS}"))
        if not (path / _RESULTS).is_file()
        else []
        for path in (a, b)
    ]
    if seeds[0] != seeds[1]:
        found = [f"{path} has {', '.join(names) or 'none'}" for path, names in zip((a, b), seeds, strict=True)]
        raise InputError(f"both sides need runs of the same names, one for each seed: {'; '.join(found)}")
    return seeds[0] or [""]


def _results_file(path: Path) -> Path:
    return path / _RESULTS if path.is_dir() else path


def _common_test_data(*runs: Path) -> str:
    """Returns the data set that all runs were evaluated on.

    Raises:
        InputError: a folder is not a run, or the runs were not evaluated on one common data set.
    """
    from maskrcnn_ext.common.next_command import runs_near
    from maskrcnn_ext.errors import InputError
    from maskrcnn_ext.report.run import read_run

    names = {}
    for run in runs:
        if not (run / "config.yaml").is_file():
            raise InputError(
                f"{run} is not the folder of a run with a config.yaml: add TRUTH, the ground truth of its results{runs_near(run)}"
            )
        names[run] = read_run(run).test_data
    first = names[runs[0]]
    for run, other in names.items():
        if other != first:
            raise InputError(f"{runs[0]} was evaluated on {', '.join(first)}, {run} on {', '.join(other)}: add TRUTH")
    if len(first) != 1:
        raise InputError(f"the runs were evaluated on {len(first)} data sets ({', '.join(first)}): add TRUTH")
    return first[0]
