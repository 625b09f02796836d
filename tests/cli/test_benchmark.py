"""`maskrcnn-ext benchmark`: wrong arguments are refused in one line."""

import pytest

from maskrcnn_ext.cli import benchmark, main


def test_wrong_numbers_are_refused(capsys):
    assert main(["benchmark", "poolers", "--repeats", "0"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_all_parts_begin_with_the_machine(monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "PARTS", {})
    assert main(["benchmark", "all", "--threads", "3"]) == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert all(part in line for part in (" cores, 3 threads, ", " GB; "))


@pytest.mark.parametrize("count", ["0", "-2"])
def test_wrong_threads_are_refused(capsys, count):
    assert main(["benchmark", "poolers", "--threads", count]) == 2
    assert "expected 1 or more" in capsys.readouterr().err
