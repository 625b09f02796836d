"""`maskrcnn-ext benchmark`: every side and its ratio, printed and written."""

import json
import mmap
import runpy

import pytest

from maskrcnn_ext.benchmark.measuring import measure, memory_growth
from maskrcnn_ext.benchmark.tables import Row, Table
from maskrcnn_ext.cli import main
from maskrcnn_ext.data.formats import cache
from tests.conftest import ROOT

TABLE = Table(
    "Sorting",
    [Row("slow", [0.4, 0.2, 0.3], {"MB": 1234.5}), Row("fast", [0.1, 0.1, 0.4], {"MB": 0.25}), Row("counted")],
    "Of one list.",
)


def test_ratios_are_of_medians_to_the_first_row():
    assert TABLE.ratios() == pytest.approx({"slow": 1.0, "fast": 3.0})
    assert Table("memory alone", [Row("one", values={"MB": 1.0})]).ratios() == {}


def test_markdown_has_median_spread_ratio_and_other_values():
    assert TABLE.as_markdown().splitlines() == [
        "### Sorting",
        "",
        "|  | median | from | to | times as fast | MB |",
        "| --- | --- | --- | --- | --- | --- |",
        "| slow | 300 ms | 200 ms | 400 ms | 1.00 | 1,234 |",
        "| fast | 100 ms | 100 ms | 400 ms | 3.00 | 0.25 |",
        "| counted |  |  |  |  |  |",
        "",
        "Of one list.",
    ]


def test_the_sides_take_turns_after_a_round_that_does_not_count():
    order = []
    seconds = measure({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2, pause=0)
    assert order == ["a", "b"] * 3
    assert [len(times) for times in seconds.values()] == [2, 2]


def new_pages(size):
    """Memory that the system has to hand over, whatever this process has freed before."""
    memory = mmap.mmap(-1, size)
    for start in range(0, size, mmap.PAGESIZE):
        memory[start] = 1
    return memory


def test_memory_is_the_peak_while_the_function_runs():
    def function():
        with new_pages(80_000_000) as held:
            for _ in range(10):
                held.find(b"2")  # for longer than the watcher waits
        return new_pages(30_000_000)

    assert 75 < memory_growth(function) < 110


def test_a_part_prints_and_writes_every_side(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("MASKRCNN_EXT_CACHE", "off")
    monkeypatch.setattr(cache, "MIN_BYTES", 1)
    script = runpy.run_path(str(ROOT / "scripts/benchmark.py"))["main"]
    assert (
        script(["benchmark", "data", "--images", "5", "--annotations", "20", "--repeats", "1", "-o", str(tmp_path)])
        == 0
    )
    title, *_ = capsys.readouterr().out.splitlines()
    assert title == "### 5 images, 20 annotations, 0 MB"
    written = json.loads((tmp_path / "results.json").read_text())
    (table,) = written["tables"]
    assert [row["side"] for row in table["rows"]] == [
        "json.load + pycocotools' index",
        "maskrcnn_ext, no cache",
        "maskrcnn_ext, writing the cache",
        "maskrcnn_ext, from the cache",
    ]
    assert table["times_as_fast"].keys() == {row["side"] for row in table["rows"]}
    assert written["machine"]["cores"] >= 1
    assert "torch" in written["versions"]
    assert "| maskrcnn_ext, from the cache | " in (tmp_path / "results.md").read_text()
    assert (tmp_path / "results.png").stat().st_size > 1000


def test_numbers_that_cannot_be_are_refused(capsys):
    assert main(["benchmark", "poolers", "--repeats", "0"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
