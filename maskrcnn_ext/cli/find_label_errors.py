"""``maskrcnn-ext find-label-errors``: ranks the labels of a data set that a model contradicts."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskrcnn_ext.common.text import plural
from maskrcnn_ext.errors import InputError

if TYPE_CHECKING:
    from maskrcnn_ext.data.formats.records import DataSet
    from maskrcnn_ext.evaluation.label_errors import Suspect
    from maskrcnn_ext.report.label_errors import Outline, SuspectLabel

_TITLES = {
    "missing": "missing {found}",
    "spurious": "no {label} here",
    "class": "{label}, or {found}",
    "outline": "bad outline of {label}",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument(
        "run",
        metavar="RUN",
        type=Path,
        help="folder of `train --folds`, whose predictions are out of fold; of a run that was tested on DATA; or COCO results",
    )
    parser.add_argument(
        "data", metavar="DATA", help="a data set that the model has not seen, such as coco:a.json@images"
    )
    parser.add_argument("--count", type=int, default=200, help="number of labels to list (default: %(default)s)")
    parser.add_argument(
        "--save",
        default="coco",
        metavar="KIND,...",
        help="the list for a label tool: labelme, cvat, labelstudio, coco, or none (default: %(default)s)",
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("output/label_errors"), help="folder (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Writes the list, the page and the files for label tools, and prints their numbers."""
    if args.count < 1:
        raise InputError(f"--count {args.count}: expected at least 1")
    from maskrcnn_ext.common.next_command import print_next
    from maskrcnn_ext.data.registry.catalog import load_dataset
    from maskrcnn_ext.data.registry.dicts import to_dicts
    from maskrcnn_ext.evaluation.label_errors import KINDS, find_label_errors
    from maskrcnn_ext.evaluation.results import load_results
    from maskrcnn_ext.evaluation.truth import load_truth
    from maskrcnn_ext.inference.outputs.label_files import LABEL_KINDS, write_label_files
    from maskrcnn_ext.report.label_errors import SuspectLabel, write_label_errors_page

    kinds = [kind for kind in args.save.replace("labelstudio", "label-studio").split(",") if kind != "none"]
    unknown = next((kind for kind in kinds if kind not in LABEL_KINDS), None)
    if unknown is not None:
        raise InputError(f"--save {unknown}: expected some of {', '.join(LABEL_KINDS)}, or none")
    file = _results_file(args.run, args.data)
    truth, data = load_truth(args.data), load_dataset(args.data)
    if args.run.is_dir():
        _warn_if_trained(args.run, data)
    results = load_results(file, truth)
    suspects = find_label_errors(truth, results)
    listed = suspects[: args.count]
    records = {record["image_id"]: record for record in to_dicts(data)}
    names = {category["id"]: category["name"] for category in truth.categories}
    shown = []
    for one in listed:
        label = None if one.object is None else _outline(truth.annotations[one.object], names)
        found = None if one.result is None else _outline(results[one.result], names)
        words = {key: outline.name if outline else "" for key, outline in (("label", label), ("found", found))}
        title = _TITLES[one.kind].format(**words)
        shown.append(SuspectLabel(records[one.image_id], title, one.score, label, found))
    args.output.mkdir(parents=True, exist_ok=True)
    _write_lists(args.output, listed, shown)
    counts = Counter(one.kind for one in listed)
    summary = ", ".join(f"{counts[kind]} {kind}" for kind in KINDS)
    text = f"The {len(listed)} strongest of {plural(len(suspects), 'contradiction')} in {plural(len(records), 'image')}: {summary}."
    page = write_label_errors_page(args.output / "index.html", shown, title=f"Suspect labels of {args.data}", text=text)
    write_label_files(_as_labels(data, shown), args.output, kinds)
    print(text)
    print(f"{page}\n{args.output / 'label_errors.json'}\n{args.output / 'label_errors.csv'}")
    for kind in kinds:
        print(f"{kind}: {args.output / kind}")
    print_next(["check-data", args.data], ["train", args.data, "--folds", "5"])
    return 0


def _results_file(run: Path, data: str) -> Path:
    """Returns the predictions of a run, or COCO results themselves."""
    from maskrcnn_ext.report.run import read_run

    if run.is_file():
        return run
    found = read_run(run)
    if not found.results_file.is_file():
        raise InputError(
            f"{run}: has no predictions: maskrcnn-ext predict {run} {data} -o predicted --save json, and give predicted/predictions.json"
        )
    return found.results_file


def _warn_if_trained(run: Path, data: DataSet) -> None:
    """Warns if a run was trained on images of the data, whose errors it has learned."""
    from maskrcnn_ext.data.registry.catalog import load_dataset
    from maskrcnn_ext.report.run import read_run

    trained: set[Path] = set()
    for name in read_run(run).train_data:
        with suppress(InputError):  # the training data may be gone
            trained |= {Path(record.file_name).resolve() for record in load_dataset(name).images}
    count = sum(Path(record.file_name).resolve() in trained for record in data.images)
    if count:
        print(
            f"maskrcnn-ext find-label-errors: warning: {run} was trained on {count} of {plural(len(data.images), 'image')}, and confirms "
            "the errors of their labels: use `train --folds`",
            file=sys.stderr,
        )


def _outline(record: dict[str, Any], names: dict[Any, str]) -> Outline:
    from maskrcnn_ext.report.label_errors import Outline

    x, y, width, height = record["bbox"]
    return Outline((x, y, x + width, y + height), record.get("segmentation"), names[record["category_id"]])


def _place(one: SuspectLabel) -> Outline:
    """Returns the label, or the detection of a missing one."""
    outline = one.label or one.found
    assert outline is not None
    return outline


def _write_lists(folder: Path, suspects: list[Suspect], shown: list[SuspectLabel]) -> None:
    """Writes the suspects as JSON and CSV."""
    import json

    from maskrcnn_ext.common.files import write_atomic
    from maskrcnn_ext.common.tables import csv_table

    headers = ("rank", "kind", "score", "image_id", "file_name", "x0", "y0", "x1", "y1", "title")
    rows = [
        [
            rank,
            suspect.kind,
            round(suspect.score, 4),
            suspect.image_id,
            one.record["file_name"],
            *(round(value, 2) for value in _place(one).box),
            one.title,
        ]
        for rank, (suspect, one) in enumerate(zip(suspects, shown, strict=True), start=1)
    ]
    write_atomic(folder / "label_errors.csv", csv_table(headers, rows).encode("utf-8", "backslashreplace"))
    write_atomic(
        folder / "label_errors.json", json.dumps([dict(zip(headers, row, strict=True)) for row in rows], indent=1)
    )


def _as_labels(data: DataSet, shown: list[SuspectLabel]) -> DataSet:
    """Returns the images with suspect labels, the worst first, as records: a class is the title of a suspect."""
    from dataclasses import replace

    from maskrcnn_ext.data.formats.records import Annotation, DataSet
    from maskrcnn_ext.ops.rle import segmentation_to_rle, with_text_counts

    titles = list(dict.fromkeys(one.title for one in shown))
    known = {record.image_id: record for record in data.images}
    records: dict[Any, Any] = {}
    for one in shown:
        image_id = one.record["image_id"]
        if image_id not in records:
            records[image_id] = replace(known[image_id], annotations=[], labelled_classes=None)
        outline, record = one.found or _place(one), records[image_id]
        segmentation = outline.segmentation or None
        if segmentation is not None:
            segmentation = with_text_counts(segmentation_to_rle(segmentation, record.height, record.width))
        annotation = Annotation(titles.index(one.title), outline.box, segmentation, score=one.score)
        record.annotations.append(annotation)
    return DataSet(titles, list(records.values()))
