"""Metrics of parts of the images: by site, scanner, camera, or day and night."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

from maskrcnn_ext.common.text import did_you_mean, plural, short_list
from maskrcnn_ext.data.formats.text_files import read_rows
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.evaluation.bootstrap import ap_interval
from maskrcnn_ext.evaluation.results import Results, ResultsLike, load_results
from maskrcnn_ext.evaluation.summary import evaluate, possible_tasks
from maskrcnn_ext.evaluation.tables import to_json_values
from maskrcnn_ext.evaluation.truth import Truth, TruthLike, load_truth

logger = logging.getLogger(__name__)

# With more values, a column is a name or a number of each image rather than a property that images share.
MAX_SLICES = 100
_MISSING = "(none)"
_METRICS = ("AP", "AP50", "AR")
_RATES = ("precision", "recall", "F1")


def evaluate_slices(
    truth: TruthLike,
    results: ResultsLike,
    column: str,
    *,
    tasks: Sequence[str] | None = None,
    resamples: int = 1000,
    **settings: Any,
) -> list[dict[str, Any]]:
    """Measures the images of each value of a column alone.

    Args:
        truth: see :func:`maskrcnn_ext.evaluation.summary.evaluate`.
        results: see there.
        column: a key of the image records of the ground truth, such as ``site``, or a column of a CSV file, ``sites.csv:site``, that
            also has a column ``file_name`` or ``image_id``. Images without a value are a separate slice.
        tasks: see there.
        resamples: bootstrap draws for the interval of AP.
        **settings: other arguments of ``evaluate``.

    Returns:
        A dict for each task and slice, slices in the order of their names: ``task``, ``slice``, ``images``, ``objects``, ``AP``, ``low``
        and ``high`` (95 % interval of AP over draws of the slice's images), ``AP50``, ``AR``, and at the threshold ``precision``,
        ``recall`` and ``F1``. Values that cannot be measured are None.

    Raises:
        InputError: the column does not exist or has more than :data:`MAX_SLICES` values, or as ``evaluate``.

    Example:
        >>> cat = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 2, 4, 4]}
        >>> images = [{"id": 1, "height": 8, "width": 8, "site": "north"}, {"id": 2, "height": 8, "width": 8, "site": "south"}]
        >>> truth = {"images": images, "categories": [{"id": 1, "name": "cat"}], "annotations": [cat, {**cat, "image_id": 2}]}
        >>> rows = evaluate_slices(truth, [{**cat, "score": 0.9}], "site")
        >>> [(row["slice"], row["images"], round(row["AP"])) for row in rows]
        [('north', 1, 100), ('south', 1, 0)]
    """
    loaded_truth = load_truth(truth)
    loaded_results = load_results(results, loaded_truth)
    tasks = possible_tasks(loaded_truth, loaded_results) if tasks is None else tasks
    rows = []
    for name, images in image_slices(loaded_truth, column).items():
        part, found = _part_of(loaded_truth, loaded_results, set(images))
        summary = evaluate(part, found, tasks=tasks, **settings)
        for task in tasks:
            metrics = summary["tasks"][task]
            _, low, high = ap_interval(part, found, task=task, resamples=resamples)
            rows.append(
                {
                    "task": task,
                    "slice": name,
                    "images": len(images),
                    "objects": summary["data"]["objects"],
                    "AP": metrics["AP"],
                    "low": low,
                    "high": high,
                    **{key: metrics[key] for key in _METRICS[1:]},
                    **{key: metrics["at_threshold"][key] for key in _RATES},
                }
            )
    json_values: list[dict[str, Any]] = to_json_values(sorted(rows, key=lambda row: tasks.index(row["task"])))
    return json_values


def image_slices(truth: Truth, column: str) -> dict[str, list[Any]]:
    """Returns the ids of the images of each value of a column, see :func:`evaluate_slices`; values are sorted."""
    file, colon, name = column.rpartition(":")
    values = _values_in_file(truth, Path(file), name) if colon else _values_in_records(truth, column)
    slices: dict[str, list[Any]] = {}
    for image in truth.images:
        slices.setdefault(str(values.get(image["id"], _MISSING)), []).append(image["id"])
    if len(slices) > MAX_SLICES:
        raise InputError(
            f"{column} has {len(slices)} values in {plural(len(truth.images), 'image')}, more than {MAX_SLICES}: "
            "name a column whose values images share"
        )
    return dict(sorted(slices.items()))


def _values_in_records(truth: Truth, column: str) -> dict[Any, Any]:
    """Returns the values of a key of the image records by image id."""
    known = sorted({key for image in truth.images for key in image})
    if column not in known:
        hint = (
            did_you_mean(column, known) or f"they have {short_list(known, 12)}; or name a CSV file, FILE.csv:{column}"
        )
        raise InputError(f"the image records of {truth.name} have no `{column}`: {hint}")
    return {image["id"]: image[column] for image in truth.images if image.get(column) is not None}


def _values_in_file(truth: Truth, file: Path, column: str) -> dict[Any, str]:
    """Returns the values of a column of a CSV file by image id."""
    header, *rows = read_rows(file) or [[]]
    key = next((name for name in ("file_name", "image_id") if name in header), None)
    if column not in header or key is None:
        need = f"`{column}`" if column not in header else "`file_name` or `image_id`"
        raise InputError(f"{file}: has no column {need}: its columns are {short_list(header, 12)}")
    records = [dict(zip(header, row, strict=False)) for row in rows]
    values = {record[key]: record[column] for record in records if key in record and record.get(column)}
    names = [str(image["id"] if key == "image_id" else image.get("file_name", "")) for image in truth.images]
    found = {}
    for name, image in zip(names, truth.images, strict=True):
        value = values.get(name, values.get(PurePath(name).name) if key == "file_name" else None)
        if value is not None:
            found[image["id"]] = value
    if not found:
        raise InputError(f"{file}: no `{key}` is one of {truth.name}, such as {next(iter(names), None)!r}")
    if len(found) < len(truth.images):
        count = len(truth.images) - len(found)
        logger.warning(
            "%s has no value for %d of %d images: their slice is %r", file, count, len(truth.images), _MISSING
        )
    return found


def _part_of(truth: Truth, results: Results, images: set[Any]) -> tuple[Truth, Results]:
    """Returns the ground truth and results of some images."""
    part = replace(
        truth,
        images=[image for image in truth.images if image["id"] in images],
        annotations=[found for found in truth.annotations if found["image_id"] in images],
    )
    return part, [found for found in results if found["image_id"] in images]
