"""The tables of a summary: all files, equal numbers, no nan."""

import csv
import json
from pathlib import Path

import pytest

from maskrcnn_ext.evaluation.summary import evaluate
from maskrcnn_ext.evaluation.tables import metric_table, write_tables
from tests.helpers.scenes import random_scene


@pytest.fixture(scope="module")
def summary():
    return evaluate(*random_scene(7, images=12))


def test_tables(tmp_path, summary):
    files = write_tables(summary, tmp_path / "new" / "folder")
    assert {file.name for file in files} == {"evaluation.json", "evaluation.md"} | {
        f"{task}_{name}.csv" for task in ("bbox", "segm") for name in ("classes", "images", "confusion")
    }
    assert json.loads(files[0].read_text()) == summary
    text = files[1].read_text()
    assert f"{summary['tasks']['segm']['AP']:.2f}" in text
    assert "nan" not in text
    with Path(tmp_path, "new", "folder", "segm_classes.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["AP"]) for row in rows] == [row["AP"] for row in summary["tasks"]["segm"]["per_class"]]
    assert metric_table(("a", "b"), [(None, 1.5), ("x|y", 0.25)]).splitlines()[2:] == [
        "| -    | 1.50 |",
        "| x\\|y | 0.25 |",
    ]
