"""The folder of a run is read completely; other folders are refused in one line."""

import json

import pytest

from maskrcnn_ext import InputError
from maskrcnn_ext.report.run import read_run
from tests.helpers.run_folders import shapes_run


def test_a_run_is_read_whole(tmp_path, shapes):
    run = read_run(shapes_run(tmp_path / "run", shapes))
    assert run.results["segm/AP"] == 41.25
    assert set(run.results) == {"segm/AP", "segm/AP50", "segm/APl", "segm/AP-disc", "bbox/AP"}
    assert run.iterations == 10
    assert run.test_data == [f"coco:{shapes}@{shapes.parent / 'images'}"]
    assert run.training_seconds == 26 * 3600 + 3 * 60 + 4
    assert run.seconds_per_iteration == 0.5
    assert run.inference_seconds == 0.415224
    assert run.gpu_memory == [(9, 2048.0)]
    assert run.started == ""
    settings = run.settings()
    assert settings["optimizer._target_"] == "torch.optim.AdamW"
    assert settings["dataloader.train.mapper.augmentations.0._target_"] == "detectron2.data.transforms.RandomFlip"
    assert settings["model.pixel_mean"] == "[103.53, 116.28, 123.675]"


def test_a_resumed_run_is_one_curve_and_a_cut_off_line_is_left_out(tmp_path):
    lines = [
        {"iteration": 5, "total_loss": 2.0},
        {"iteration": 9, "total_loss": 1.5},
        {"iteration": 5, "total_loss": 1.8, "lr": 1},
    ]
    (tmp_path / "metrics.json").write_text("\n".join(map(json.dumps, lines)) + '\n{"iteration": 12, "total_')
    run = read_run(tmp_path)
    assert run.scalars == [{"iteration": 5, "total_loss": 1.8, "lr": 1}, {"iteration": 9, "total_loss": 1.5}]
    assert (run.config, run.manifest, run.log, run.test_data, run.results) == ({}, {}, "", [], {})
    assert run.training_seconds is None
    assert run.inference_seconds is None


@pytest.mark.parametrize(
    ("best", "kept"),
    [
        ({"metric": "segm/AP", "mode": "max", "evaluate": True}, 30.0),
        ({"metric": "loss", "mode": "min", "evaluate": True}, 10.0),
        ({"metric": "segm/AP", "mode": "max", "evaluate": False}, 20.0),
        ({"metric": None, "evaluate": True}, 20.0),
        ({"metric": "segm/APl", "mode": "max", "evaluate": True}, 20.0),  # never defined
    ],
)
def test_the_metrics_are_those_of_the_predictions_that_the_run_keeps(best, kept, tmp_path):
    lines = [
        {"iteration": 4, "segm/AP": 10.0, "segm/APl": float("nan"), "loss": 1.0},
        {"iteration": 8, "segm/AP": 30.0, "segm/APl": float("nan"), "loss": 2.0},
        {"iteration": 9, "total_loss": 1.5},
        {"iteration": 12, "segm/AP": 20.0, "segm/APl": float("nan"), "loss": 3.0},
    ]
    (tmp_path / "metrics.json").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "config.yaml").write_text(json.dumps({"train": {"best": best}}))
    assert read_run(tmp_path).results["segm/AP"] == kept


@pytest.mark.parametrize(
    ("best", "kept"),
    [
        ({}, 21.0),
        ({"metric": "segm/AP", "evaluate": True}, 30.0),
        ({"metric": "ema/segm/AP", "evaluate": True}, 25.0),
        ({"metric": "ema/segm/AP"}, 21.0),
    ],
)
def test_the_metrics_of_an_average_are_those_of_its_predictions(best, kept, tmp_path):
    """The average is evaluated after the weights themselves."""
    lines = [
        {"iteration": 4, "segm/AP": 10.0, "ema/segm/AP": 25.0},
        {"iteration": 8, "segm/AP": 30.0, "ema/segm/AP": 24.0},
        {"iteration": 12, "segm/AP": 20.0, "ema/segm/AP": 21.0},
    ]
    (tmp_path / "metrics.json").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "config.yaml").write_text(json.dumps({"train": {"best": best}}))
    assert read_run(tmp_path).results == {"segm/AP": kept}


def test_the_manifest_has_the_time(tmp_path):
    (tmp_path / "metrics.json").touch()
    (tmp_path / "manifest.json").write_text(json.dumps({"started": "2026-01-02T03:04:05+00:00"}))
    assert read_run(tmp_path).started == "2026-01-02 03:04 UTC"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("else.txt", "", r"is not the folder of a run: it has no metrics\.json"),
        ("config.yaml", "a: [1", r"config\.yaml, line 1: not a YAML file \("),
        ("manifest.json", "{", r"manifest\.json: not a JSON file"),
    ],
)
def test_other_folders_are_refused_in_one_line(tmp_path, name, content, message):
    if name == "manifest.json":
        (tmp_path / "metrics.json").touch()
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        read_run(tmp_path)
    assert "\n" not in str(caught.value)
