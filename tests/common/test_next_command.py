"""Commands end with the next one, and wrong names with the choices."""

import shlex

import pytest

from maskrcnn_ext.cli import COMMANDS, main
from maskrcnn_ext.common.next_command import print_next, runs_near


def test_the_printed_command_is_one_a_shell_reads(capsys):
    words = ["predict", "my run", "it's.png", "-o", "$out"]
    print_next(words, ["demo"])
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["", "Next:"]
    assert shlex.split(lines[2]) == ["maskrcnn-ext", *words]
    assert shlex.split(lines[3]) == ["maskrcnn-ext", "demo"]


def test_runs_near_a_wrong_folder(tmp_path):
    for name in ("b/10", "b/9", "a"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.yaml").touch()
    assert runs_near(tmp_path) == f"; runs near it: {tmp_path}/a, {tmp_path}/b/9, {tmp_path}/b/10"
    assert runs_near(tmp_path / "b") == f"; runs near it: {tmp_path}/b/9, {tmp_path}/b/10"
    assert runs_near(tmp_path / "c") == runs_near(tmp_path)
    assert runs_near(tmp_path / "no/such") == ""


def test_a_wrong_command_lists_all(capsys):
    assert main(["predcit"]) == 2
    error = capsys.readouterr().err
    assert "did you mean predict" in error
    assert all(name in error for name in COMMANDS)
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["configs", "nuclei"], None),
        (["configs", "nucle"], "did you mean"),
        (["configs", "zzz"], "`maskrcnn-ext configs` lists"),
        (["predict", "output/zzz", "a.png"], "no config 'output/zzz' ships with maskrcnn_ext"),
    ],
)
def test_names_of_configs(capsys, command, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").touch()
    (tmp_path / "output/mine").mkdir(parents=True)
    (tmp_path / "output/mine/config.yaml").touch()
    status = main(command)
    printed = capsys.readouterr()
    if message is None:
        assert status == 0
        assert printed.out.endswith("domains/nuclei.py\n")
    else:
        assert status == 2
        assert message in printed.err
        assert ("runs near it: output/mine" in printed.err) == (command[0] == "predict")
