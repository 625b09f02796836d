import pytest

from tests.benchmark.conftest import sides, tables  # noqa: F401  # a fixture
from tests.inference.conftest import run, spec  # noqa: F401  # fixtures

pytest.importorskip("uvicorn")


@pytest.mark.slow
def test_each_number_of_clients_is_a_row(tables, run):
    (table,) = tables("serve", run, "--clients", 1, 3, "--requests", 5, "--size", "48x64")
    assert sides(table) == ["1 client", "3 clients"]
    for row in table["rows"]:
        assert row["values"]["errors"] == "none"
        assert 0 < row["values"]["median s"] <= row["values"]["longest s"]
