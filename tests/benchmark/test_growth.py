"""How predictions grow: fits of known curves, and a row for each value."""

import pytest

from maskrcnn_ext.benchmark import growth
from tests.benchmark.conftest import SMALL, STOCK_AND_OURS, sides


def test_slopes_of_known_curves():
    found = growth.slope("", "image", [1, 2, 4, 8], [3 * n**1.5 for n in (1, 2, 4, 8)], [5, 8, 14, 26])
    assert found.values["power"] == pytest.approx(1.5)
    assert found.values["MB per unit"] == pytest.approx(3)


@pytest.mark.slow
def test_axes_of_several_values_have_slopes(tables):
    values = ("--side", 64, 96, "--batch", 1, "--instances", 2, 20, "--classes", 3)
    image, batch, instances, classes, slopes = tables("growth", "--config", SMALL, *values)
    assert [sides(table) for table in (image, batch, instances, classes)] == [["64", "96"], ["1"], ["2", "20"], ["3"]]
    assert [row["values"]["detections"] for row in instances["rows"]] == [2, 20]
    assert sides(slopes) == [
        f"{axis}: {side}" for axis in ("side of the image", "instances") for side in STOCK_AND_OURS
    ]
