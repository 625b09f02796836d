"""A line when torch is imported, on a terminal only."""

import sys

import pytest

from maskrcnn_ext.common.torch_notice import TorchNotice, torch_notice
from tests.helpers.terminal import run_on_terminal

SCRIPT = """
import sys
from maskrcnn_ext.cli import main, COMMANDS
from maskrcnn_ext.cli import configs
sys.path.insert(0, sys.argv[1])
configs.run = lambda args: __import__("torch").STATUS
main(["configs"])
print("finders", [type(finder).__name__ for finder in sys.meta_path].count("TorchNotice"))
"""


def test_a_terminal_shows_it_before_torch_is_loaded(tmp_path):
    (tmp_path / "torch.py").write_text("print('torch runs'); STATUS = 0")
    lines = run_on_terminal(SCRIPT, tmp_path).split("\r\n")
    assert lines[:3] == ["loading PyTorch", "torch runs", "finders 0"]


def test_other_streams_and_modules_show_nothing(capsys):
    before = list(sys.meta_path)
    with torch_notice():
        assert sys.meta_path == before
    TorchNotice().find_spec("json", None)
    assert capsys.readouterr().err == ""


def test_it_is_removed_after_an_error(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    before = list(sys.meta_path)
    with pytest.raises(ValueError, match="broken"), torch_notice():
        raise ValueError("broken")
    assert sys.meta_path == before
