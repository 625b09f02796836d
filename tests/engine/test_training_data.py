"""Faults that would stop or invalidate a training at its first evaluation stop it before its first iteration, with one line."""

import json
import re

import pytest
import torch

from maskrcnn_ext import InputError
from maskrcnn_ext.common.lock import lock_folder
from maskrcnn_ext.engine.main import train as run_training
from maskrcnn_ext.inference.loading import load_model
from tests.helpers.small_run import small_run, spec_of

STOCK = "detectron2.evaluation.COCOEvaluator"


@pytest.fixture
def train(tmp_path, capsys):
    """Runs a training of no more than two iterations; returns its exit status, its last line and its folder."""

    def run(spec, *arguments, folder="run", **overrides):
        keys = {"train.max_iter": 1, **overrides}
        status = run_training(
            ["--config-file", "domains/shapes.py", *arguments, *small_run(spec, tmp_path / folder, **keys)]
        )
        return status, capsys.readouterr().err.strip().splitlines()[-1:], tmp_path / folder

    return run


@pytest.fixture
def change(shapes, tmp_path):
    """Writes a changed copy of the shapes' annotations; returns its data set string."""

    def changed(name, edit):
        content = json.loads(shapes.read_text())
        edit(content)
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
        return f"coco:{tmp_path / name}.json@{shapes.parent / 'images'}"

    return changed


def test_classes_and_counts_follow_the_training_set(train, change, shapes, caplog):
    def two_classes(content):
        content["categories"] = [{"id": 1, "name": "round"}, {"id": 9, "name": "other"}]
        for annotation in content["annotations"]:
            annotation["category_id"] = 1 if annotation["category_id"] == 1 else 9

    spec = change("two", two_classes)
    status, _, folder = train(spec)
    assert status == 0
    assert "model.roi_heads.num_classes=2, from the training set (round, other)" in caplog.text
    assert "num_classes: 2" in (folder / "config.yaml").read_text()
    stored = {"names": ["round", "other"], "category_ids": [1, 9]}
    assert stored.items() <= json.loads((folder / "manifest.json").read_text())["classes"].items()
    saved = torch.load(folder / "model_final.pth", weights_only=True)["classes"]
    assert (saved["names"], saved["category_ids"]) == (("round", "other"), (1, 9))
    # A model keeps its classes when its data has moved.
    gone = [f"dataloader.{split}.dataset.names=coco:/gone.json@/gone" for split in ("train", "test")]
    classes = load_model(folder, device="cpu", overrides=gone).classes
    assert (classes.names, classes.category_ids) == (("round", "other"), (1, 9))

    turned = change("turned", lambda content: (two_classes(content), content["categories"][0].update(name="flat")))
    status, (line,), _ = train(turned, "--resume", **{"train.max_iter": 2})
    assert status == 2
    assert "class 0 is 'flat' in the training set and 'round' in the checkpoint in" in line
    weights = f"train.init_checkpoint={folder}/model_final.pth"
    status, (line,), _ = train(turned, "--eval-only", weights, folder="eval", **{"model.roi_heads.num_classes": 2})
    assert status == 2
    assert f"class 0 is 'round' in {folder}/model_final.pth" in line


@pytest.mark.parametrize(
    ("edit", "overrides", "message"),
    [
        ("none", {"model.roi_heads.num_classes": 4}, "num_classes=4, but .* has 5 classes"),
        ("turned", {}, "class 0 is 'disc' in .* and 'ring' in .*: give both the same classes"),
        ("no_crowd", {"dataloader.evaluator._target_": STOCK}, "Detectron2's COCOEvaluator needs `iscrowd`"),
        (
            "box",
            {"train.best.metric": "segm/AP", "train.eval_period": 1},
            "train.best.metric=segm/AP: the evaluation has no such",
        ),
        ("no_image", {}, r"dataloader\.test: 1 of 8 image files of .* does not exist: .*gone.jpg"),
        ("gone", {}, "no such file or folder"),
        ("none", {"dataloader.evaluator.dataset_name": "gone"}, "no data set 'gone'"),
    ],
)
def test_a_fault_of_the_test_set_ends_before_the_first_iteration(edit, overrides, message, train, change, shapes):
    def turn(content):
        names = [category["name"] for category in content["categories"]]
        for category, name in zip(content["categories"], reversed(names), strict=True):
            category["name"] = name

    edits = {
        "turned": turn,
        "no_crowd": lambda content: content["annotations"][3].pop("iscrowd"),
        "box": lambda content: content["annotations"][3].pop("segmentation"),
        "no_image": lambda content: content["images"][2].update(file_name="gone.jpg"),
    }
    test = (
        change(edit, edits[edit])
        if edit in edits
        else spec_of(shapes).replace(".json", ".gone")
        if edit == "gone"
        else spec_of(shapes)
    )
    status, (line,), folder = train(spec_of(shapes), **{"dataloader.test.dataset.names": test, **overrides})
    assert status == 2
    assert re.match(f"error: .*{message}", line)
    assert not list(folder.glob("*.pth"))


def test_a_checkpoint_precedes_a_failing_evaluation(train, shapes, monkeypatch):
    def fail(*_):
        raise InputError("the evaluation fails")

    monkeypatch.setattr("maskrcnn_ext.evaluation.coco.COCOEvaluator.process", fail)
    status, line, folder = train(spec_of(shapes), **{"train.max_iter": 2, "train.eval_period": 1})
    assert (status, line) == (2, ["error: the evaluation fails"])
    assert (folder / "model_0000000.pth").is_file()


def test_resume_applies_the_config_and_a_finished_run_reports_it(train, shapes, caplog):
    spec = spec_of(shapes)
    assert train(spec, "~dataloader.evaluator")[0] == 0
    changes = {"train.max_iter": 2, "optimizer.lr": 0.0001, "optimizer.weight_decay": 0.5}
    status, _, folder = train(spec, "~dataloader.evaluator", "--resume", **changes)
    assert status == 0
    assert "training continues with it: lr 0.002 -> 0.0001, weight_decay 0.05 -> 0.5" in caplog.text
    groups = torch.load(folder / "model_final.pth", weights_only=True)["trainer"]["optimizer"]["param_groups"]
    assert {group["initial_lr"] for group in groups} == {0.0001}
    assert train(spec, "~dataloader.evaluator", "--resume", **{"train.max_iter": 1})[0] == 0
    assert "is over: it has done 2 iterations, and train.max_iter=1" in caplog.text


def test_a_folder_takes_one_run_at_a_time(train, shapes, tmp_path):
    with lock_folder(tmp_path / "run"):
        status, (line,), _ = train(spec_of(shapes))
    assert status == 2
    assert "is writing into it" in line
