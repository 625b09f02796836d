"""The commands after a training repeat what the user gave, and one process of a run prints them."""

import json

import pytest

from maskrcnn_ext.engine.main import main, parse_args
from maskrcnn_ext.engine.next_commands import next_commands

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "1",
    "WORLD_SIZE": "4",
    "LOCAL_WORLD_SIZE": "4",
    "LOCAL_RANK": "0",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "29500",
}


@pytest.fixture
def commands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/lr_finder.json").write_text(json.dumps({"suggestion": 0.0012}))

    def of(*arguments):
        return next_commands(parse_args(["--config-file", "domains/shapes.py", "train.output_dir=out", *arguments]))

    return of


def test_what_follows(commands):
    assert commands() == [["report", "out"], ["predict", "out", "IMAGES", "-o", "predictions"]]
    evaluated = [["report", "out"], ["compare", "out", "OTHER_RUN"]]
    assert commands("--eval-only", "train.lr_finder.enabled=true") == evaluated
    train = ["train-net", "--config-file", "domains/shapes.py"]
    assert commands("--print-config") == [[*train, "train.output_dir=out"]]
    rate = ["train.output_dir=out", "train.lr_finder.enabled=false", "optimizer.lr=0.0012"]
    assert commands("train.lr_finder.enabled=true", "train.lr_finder.steps=20") == [[*train, *rate]]


@pytest.mark.parametrize(
    "flags",
    [
        ["--num-gpus", "0"],
        ["--num-gpus", "8", "--num-machines", "2", "--dist-url", "tcp://first:29500"],
        ["--resume"],
        ["--num-gpus", "4", "--eval-only"],
    ],
)
def test_flags_are_repeated(commands, flags):
    assert commands("--print-config", *flags)[0][3:] == [*flags, "train.output_dir=out"]


def test_one_process_prints(commands, monkeypatch):
    assert commands("--num-machines", "2", "--machine-rank", "1", "--dist-url", "tcp://first:29500") == []
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RANK", "1")
    assert commands() == []
    monkeypatch.setenv("RANK", "0")
    assert commands()[0] == ["report", "out"]
    assert commands("--print-config")[0][3:] == ["--num-gpus", "4", "train.output_dir=out"]


@pytest.mark.parametrize(("status", "printed"), [(0, True), (75, False), (2, False)])
def test_they_follow_success(status, printed, commands, monkeypatch, capsys):
    monkeypatch.setattr("maskrcnn_ext.engine.launching.launch", lambda *_: status)
    assert main(["--config-file", "domains/shapes.py", "train.output_dir=out"]) == status
    assert ("maskrcnn-ext report out" in capsys.readouterr().err) is printed
