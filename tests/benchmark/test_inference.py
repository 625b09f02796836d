"""Prediction in each runtime: all sides predict the same images."""

import pytest
import torch

from maskrcnn_ext.benchmark import inference, models, training
from maskrcnn_ext.cli import main
from tests.benchmark.conftest import SIZE, SMALL, STOCK_AND_OURS, sides


def test_torchvision_detects_as_many(tmp_path):
    file = models.torchvision_weights(tmp_path / "weights.pth", SIZE)
    case = inference.Case(tmp_path, SMALL, SIZE, 1, 1)
    file.rename(tmp_path / "torchvision.pth")
    found = inference.open_side("torchvision", case)([models.photograph(*SIZE)])
    assert inference.count_detections(found) == 100
    assert found[0]["masks"].shape == (100, 1, *SIZE)


@pytest.mark.parametrize("argument", ["--size=64", "--size=0x64", "--batch=0"])
def test_wrong_sizes_are_refused(argument, capsys):
    with pytest.raises(SystemExit):
        main(["benchmark", "inference", argument])
    assert f"invalid {'size' if 'size' in argument else 'positive'} value" in capsys.readouterr().err


@pytest.mark.slow
def test_every_installed_runtime_is_measured(tables):
    (table,) = tables("inference", "--config", SMALL, "--size", "64x96")
    names = [name for name in inference.SIDES if models.computes_bf16() or not name.endswith("bf16")]
    names = [name for name in names if models.computes_int8() or not name.endswith("int8")]
    assert [name for name in names if name not in sides(table)] == [
        name for name in ("ONNX Runtime", "OpenVINO") if f"Not measured: {name}" in table["note"]
    ]
    assert all(row["values"]["detections"] == 100 for row in table["rows"])
    assert all(row["values"]["images/s a thread"] > 0 for row in table["rows"])
    assert all(row["values"]["peak MB"] > row["values"]["grows by MB"] >= 0 for row in table["rows"])


@pytest.mark.slow
def test_sides_that_are_chosen_are_measured(tables):
    (table,) = tables("inference", "--config", SMALL, "--size", "64x96", "--sides", "OpenVINO", "Detectron2")
    assert {name.partition(",")[0] for name in sides(table)} <= {"OpenVINO", "Detectron2"}
    assert "Detectron2" in sides(table)


def test_sides_that_are_not_known(capsys):
    with pytest.raises(SystemExit):
        main(["benchmark", "inference", "--sides", "OpenVINO", "Keras"])
    assert "argument --sides: invalid choice: 'Keras'" in capsys.readouterr().err


@pytest.mark.slow
def test_batches_have_the_same_detections_in_every_runtime(tables):
    (table,) = tables("inference", "--config", SMALL, "--size", "96x128", "--batch", 2)
    found = {
        row["side"]: row["values"]["detections"]
        for row in table["rows"]
        if "bf16" not in row["side"] and "int8" not in row["side"]
    }
    assert all(abs(found[name] - found["Detectron2"]) <= 2 for name in found if name != "torchvision")
    assert 150 < found["Detectron2"] <= 200


@pytest.mark.slow
def test_inference_and_training_run_in_bf16_on_any_processor(weights, tmp_path):
    (tmp_path / "detectron2.pth").symlink_to(weights)
    case = inference.Case(tmp_path, SMALL, SIZE, 1, torch.get_num_threads())
    for name in STOCK_AND_OURS:
        assert inference.count_detections(inference.open_side(f"{name}, bf16", case)([models.photograph(*SIZE)])) > 50
        assert 0 < training.open_step(f"{name}, bf16", SMALL, str(weights), SIZE, 1, 3)() < 100
