"""The roofline: FLOPs and bytes of each part, and times that add up."""

import pytest

from tests.benchmark.conftest import SIZE, SMALL, STOCK_AND_OURS, sides


def test_every_part_has_flops_bytes_and_time(tables):
    (table,) = tables("roofline", "--config", SMALL, "--size", "64x96", "--matrix", "64", "--copy", "1")
    assert sides(table) == [
        *("image to tensor", "backbone and FPN", "RPN head", "proposals", "box pooling", "box head"),
        *("boxes to detections", "mask pooling", "mask head", "masks to the image", "all"),
    ]
    of = {row["side"]: row["values"] for row in table["rows"]}
    # 100 masks: four convolutions of 128 channels and 3 x 3 on 14 x 14, the deconvolution to 28 x 28, 80 classes.
    macs = 100 * 14 * 14 * (4 * 9 * 128**2 + 4 * 128**2 + 4 * 128 * 80)
    assert of["mask head"]["GFLOP"] == pytest.approx(2 * macs / 1e9)
    pyramid = sum(SIZE[0] * SIZE[1] // stride**2 for stride in (4, 8, 16, 32)) * 128 * 4
    pooled = 100 * 128 * 14 * 14 * 4
    assert of["mask pooling"]["MB"] == pytest.approx((pyramid + pooled + 100 * 5 * 4) / 1e6)
    for side in STOCK_AND_OURS:
        parts = sum(values[f"{side} ms"] for name, values in of.items() if name != "all")
        assert parts == pytest.approx(of["all"][f"{side} ms"], rel=0.05)
