"""Backbones of timm, eager and optimized."""

import pytest

from maskrcnn_ext.benchmark import backbones, models
from maskrcnn_ext.cli import main
from maskrcnn_ext.modeling.parts import find_part
from tests.benchmark.conftest import SMALL

pytest.importorskip("timm")
SIDES = ["fp32", *(["bf16"] if models.computes_bf16() else []), *(["int8"] if models.computes_int8() else [])]


def test_each_side_is_measured(tables):
    name = "mobilenetv3_large_100"
    (table,) = tables("backbones", "--config", SMALL, "--size", "64x96", "--networks", name, "--clock", "cpu")
    (row,) = table["rows"]
    assert row["side"] == find_part(name).name
    ratios = [f"{side}, {text}" for side in SIDES for text in ("ms", "times as fast")]
    assert table["note"].endswith("Times are CPU seconds of all threads.")
    assert list(row["values"]) == ["M parameters", "GMACs", "eager, ms", *ratios]


def test_a_head_is_no_backbone(capsys):
    assert main(["benchmark", "backbones", "--networks", "DCTMaskHead"]) == 2
    assert "--networks DCTMaskHead: not a backbone" in capsys.readouterr().err


def test_all_sides_detect_the_same_number():
    sides = backbones.open_sides(find_part("tf_efficientnet_lite0"), SMALL, (64, 96))
    counts = {name: len(predict([models.photograph(64, 96)])[0]["instances"]) for name, predict in sides.items()}
    assert counts["eager"] > 50
    assert counts["fp32"] == counts["eager"]
