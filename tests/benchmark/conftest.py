"""Runs parts of `maskrcnn-ext benchmark` at sizes that measure nothing: every side has finite values."""

import json
import math

import pytest

from maskrcnn_ext.benchmark import models
from maskrcnn_ext.cli import main

SMALL = "mask_rcnn_r18_fpn_scratch.py"


SIZE = (64, 96)
STOCK_AND_OURS = ["Detectron2", "maskrcnn_ext"]


@pytest.fixture
def tables(tmp_path, capsys):
    """Returns a function that runs a part and returns its written tables; all their numbers are finite."""

    def run(*arguments):
        assert main(["benchmark", *map(str, arguments), "--repeats", "1", "-o", str(tmp_path)]) == 0
        assert capsys.readouterr().out.startswith("### ")
        written = json.loads((tmp_path / "results.json").read_text())["tables"]
        for row in (row for table in written for row in table["rows"]):
            numbers = [*row["seconds"], *(value for value in row["values"].values() if not isinstance(value, str))]
            assert numbers
            assert all(map(math.isfinite, numbers))
        return written

    return run


def sides(table):
    return [row["side"] for row in table["rows"]]


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    return models.detectron2_weights(tmp_path_factory.mktemp("weights") / "model.pth", SMALL, [models.NO_RESIZE], SIZE)
