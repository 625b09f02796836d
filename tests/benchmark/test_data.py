"""Reading a COCO file: every side is measured, printed and written."""

import json
import runpy

from maskrcnn_ext.data.formats import cache
from tests.conftest import ROOT


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
    assert "| maskrcnn_ext, from the cache " in (tmp_path / "results.md").read_text()
    assert (tmp_path / "results.png").stat().st_size > 1000
