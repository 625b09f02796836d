"""One command from labelled images to a judged model, which the same command continues."""

import contextlib
import io
import json
from types import SimpleNamespace

import pytest

from maskrcnn_ext.cli import main
from maskrcnn_ext.cli.configure import command_line
from maskrcnn_ext.cli.train import _counts, _folder_name, _has_plan
from maskrcnn_ext.config.file import read_config_file
from maskrcnn_ext.config.plan import Machine, plan, write_config
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.report.run import read_run
from tests.helpers.labelled_images import make_fingerprint

SMALL = [
    "train.max_iter=2",
    "train.eval_period=1",
    "train.image_panel.count=0",
    "dataloader.train.num_workers=0",
    "dataloader.test.num_workers=0",
]


@pytest.fixture(scope="module")
def trained(shapes, tmp_path_factory):
    """The output of a training, its folder and its arguments."""
    out = tmp_path_factory.mktemp("train") / "out"
    arguments = ["train", str(shapes.parent), "--any-orientation", "-o", str(out)]
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        status = main([*arguments, *SMALL])
    assert status == 0, stderr.getvalue()
    return SimpleNamespace(stdout=stdout.getvalue(), stderr=stderr.getvalue()), out, arguments


def test_the_page_of_a_training(trained):
    run, out, _ = trained
    lines = run.stdout.splitlines()
    assert any(line.startswith("model ") for line in lines), "the plan"
    assert f"your overrides, which win over the plan: {' '.join(SMALL)}" in lines
    evaluations = [line for line in lines if line.startswith("iteration ")]
    assert [line.split(":")[0] for line in evaluations] == ["iteration 1", "iteration 2"]
    assert all("box AP" in line and "mask AP" in line for line in evaluations)
    assert any(line.startswith("AP of masks: ") and "95 % interval" in line for line in lines)
    assert f"report   {out / 'report.html'}" in lines
    assert f"    maskrcnn-ext predict {out} IMAGES -o predictions" in run.stderr.splitlines()
    assert len(lines) < 45
    assert "total_loss" in (out / "log.txt").read_text()
    assert json.loads((out / "manifest.json").read_text())["status"] == "finished"
    for name in (
        "config.py",
        "config_val.txt",
        "model_best.pth",
        "report.html",
        "inference/coco_instances_results.json",
    ):
        assert (out / name).is_file(), name


def test_the_same_command_continues(trained, capsys):
    run, out, arguments = trained
    before = (out / "model_final.pth").stat().st_mtime_ns
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"continuing with the plan in {out / 'config.py'}"
    assert lines[-6:] == run.stdout.splitlines()[-6:], "the judgement is the same"
    assert (out / "model_final.pth").stat().st_mtime_ns == before, "nothing is left to train"


def test_another_length_keeps_the_number_of_evaluations(trained):
    _, out, _ = trained
    config = out / "config.py"
    planned = read_config_file(str(config)).train
    assert planned.max_iter % planned.eval_period == 0
    half = planned.max_iter // 2
    assert f"train.eval_period={planned.eval_period // 2}" in _counts(config, [f"train.max_iter={half}"])
    overrides = [f"train.max_iter={half}", "train.eval_period=7"]
    assert not any(key.startswith("train.eval_period") for key in _counts(config, overrides)), "the user's own period"
    for text in ("train.max_iter=0", "train.max_iter=few", "optimizer.lr=1"):
        assert _counts(config, [text]) == [], text


def test_other_data_needs_another_folder(trained, capsys):
    _, out, arguments = trained
    assert main([*arguments, "--val", "balloon_val"]) == 2
    assert f"{out / 'config.py'} is a plan for other data" in capsys.readouterr().err


def test_a_plan_belongs_to_one_command(tmp_path, monkeypatch):
    """Long names are wrapped at their hyphens, and a name may be the beginning of another."""
    name = "a-folder-of-photographs-" * 9 + "of  leaves"
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "config.py"

    def args(data, val=None):
        return SimpleNamespace(data=data, val=val, any_orientation=False)

    for data in (name, "mine"):
        command = command_line(args(data), "train")
        config.write_text(
            write_config(plan(make_fingerprint(), Machine(), val=make_fingerprint(name="other")), command=command)
        )
        assert _has_plan(config, args(data))
        for other in (args(data[:-1]), args(data, "other")):
            with pytest.raises(InputError, match="is a plan for other data"):
                _has_plan(config, other)
    assert _has_plan(config, args(str(tmp_path / "mine"))), "a relative path means the same"


@pytest.mark.slow
def test_every_image_is_predicted_out_of_fold(shapes, tmp_path, capsys):
    arguments = ["train", str(shapes.parent), "--folds", "2", "-o", str(tmp_path / "out")]
    assert main([*arguments, *SMALL]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("AP of the folds: ") for line in lines)
    listed = [(tmp_path / f"out/fold_{number}/config_val.txt").read_text().split() for number in (1, 2)]
    assert len(listed[0]) == len(listed[1]) == 4
    assert len({*listed[0], *listed[1]}) == 8
    run = read_run(tmp_path / "out")
    assert run.results_file.is_file()
    assert len(run.test_data) == 1
    assert any(
        line.startswith("AP of masks: ") and line.endswith(" on 8 images, too few to rely on.") for line in lines
    )
    assert main(arguments) == 0, "nothing is left to train"
    assert capsys.readouterr().out.splitlines()[-5:] == lines[-5:]


def test_mistakes_are_one_line(tmp_path, capsys):
    assert main(["train", str(tmp_path / "nothing"), "-o", str(tmp_path / "out")]) == 2
    assert main(["train", "a", "b", "-o", str(tmp_path / "out")]) == 2
    assert main(["train", "a", "--folds", "1", "-o", str(tmp_path / "out")]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3
    assert not (tmp_path / "out").exists(), "nothing is left behind"
    assert errors[2] == "maskrcnn-ext train: error: --folds 1: expected 2 or more, without --val"
    assert f"{tmp_path / 'nothing'}: no such file or folder, and no data set" in errors[0]
    assert errors[1] == "maskrcnn-ext train: error: b: expected one data set, and KEY=VALUE for each override"


def test_a_folder_that_cannot_be_written_to_is_named_first(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for out in ("file", "file/out"):
        assert main(["train", "nothing", "-o", str(tmp_path / out)]) == 2
        error = capsys.readouterr().err
        assert (
            f"{out}: cannot be created or written to, {tmp_path / 'file'} is a file: choose another folder with -o"
            in error
        )


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("/data/my photos/", "my_photos"),
        ("coco:/data/train.json@/data/images", "train"),
        ("yolo:data.yaml@val", "data"),
        ("balloon_train", "balloon_train"),
        ("..", "run"),
    ],
)
def test_the_name_of_the_folder(data, name):
    assert _folder_name(data) == name
