"""The training script has the losses of the stock one, and adds config names, one-line errors and a fallback to the CPU."""

import json
import re
from pathlib import Path

import pytest
import timm
import torch

from maskrcnn_ext.config.zoo import config_path
from maskrcnn_ext.engine.main import main
from maskrcnn_ext.inference.loading import load_model
from tests.conftest import ROOT
from tests.helpers.small_run import small_run, spec_of

SCRIPT = ROOT / "scripts/train_net.py"


def overrides(spec, output_dir, **more):
    return small_run(spec, output_dir, **{"train.eval_period": 4, **more})


@pytest.fixture
def spec(shapes):
    return spec_of(shapes)


def losses(folder):
    lines = [json.loads(line) for line in (Path(folder) / "metrics.json").read_text().splitlines()]
    return [[line[key] for key in sorted(line) if "loss" in key] for line in lines if "total_loss" in line]


def weights(folder):
    return torch.load(Path(folder) / "model_final.pth", weights_only=True)["model"]


@pytest.mark.slow
def test_losses_and_weights_are_the_stock_scripts(spec, stock_script, tmp_path, run_python):
    config = config_path("domains/shapes.py")
    stock_parts = {
        "dataloader.train.mapper._target_": "detectron2.data.DatasetMapper",
        "dataloader.test.mapper._target_": "detectron2.data.DatasetMapper",
        "dataloader.evaluator._target_": "detectron2.evaluation.COCOEvaluator",
    }
    twenty = {**stock_parts, "train.max_iter": 20, "train.eval_period": 10, "train.checkpointer.period": 10}
    for name, script in (("stock", stock_script), ("ours", SCRIPT)):
        arguments = [script, "--config-file", config, "--num-gpus", "0", *overrides(spec, tmp_path / name, **twenty)]
        done = run_python(*arguments)
        assert done.returncode == 0, done.stderr[-3000:]
    assert len(losses(tmp_path / "stock")) == 20
    assert losses(tmp_path / "ours") == losses(tmp_path / "stock")
    ours, stock = weights(tmp_path / "ours"), weights(tmp_path / "stock")
    assert ours.keys() == stock.keys()
    assert all(torch.equal(ours[key], stock[key]) for key in stock)


def test_train_resume_and_evaluate(spec, tmp_path):
    arguments = ["--config-file", "domains/shapes.py"]
    first = overrides(spec, tmp_path, **{"train.max_iter": 2})
    assert main([*arguments, *first]) == 0
    assert main([*arguments, "--resume", *overrides(spec, tmp_path, **{"train.max_iter": 3})]) == 0
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    iterations = [line["iteration"] for line in lines if "data_time" in line]
    assert iterations[:3] == [0, 1, 2], "the resumed run continues after the last iteration"

    (tmp_path / "inference/coco_instances_results.json").unlink()
    checkpoint = f"train.init_checkpoint='{tmp_path / 'model_final.pth'}'"
    assert main([*arguments, "--eval-only", *overrides(spec, tmp_path), checkpoint]) == 0
    assert (tmp_path / "inference/coco_instances_results.json").is_file()


def test_a_run_with_pretrained_weights_continues_without_them(spec, tmp_path, caplog):
    weights = tmp_path / "own.pth"
    torch.save(timm.create_model("mobilenetv4_conv_small_035").state_dict(), weights)
    bottom_up = "model.backbone.bottom_up"
    swap = {
        f"{bottom_up}._target_": "maskrcnn_ext.TimmBackbone",
        f"{bottom_up}.name": "mobilenetv4_conv_small_035",
        f"{bottom_up}.pretrained": weights,
        # Pixels as the network was pre-trained on.
        "model.pixel_mean": "[127.5,127.5,127.5]",
        "model.pixel_std": "[127.5,127.5,127.5]",
        "model.input_format": "RGB",
        **{f"{bottom_up}.{key}": f"${{model.{key}}}" for key in ("pixel_mean", "pixel_std", "input_format")},
    }
    arguments = ["--config-file", "domains/shapes.py"]
    run = tmp_path / "run"
    assert main([*arguments, *overrides(spec, run, **{**swap, "train.max_iter": 1})]) == 0
    weights.unlink()
    assert main([*arguments, "--resume", *overrides(spec, run, **{**swap, "train.max_iter": 2})]) == 0
    assert "pretrained: " + str(weights) in (run / "config.yaml").read_text(), "the config has the user's value"
    model = load_model(run, device="cpu").model
    assert model.backbone.bottom_up.input.is_identity
    saved = torch.load(run / "model_final.pth", weights_only=True)["model"]
    assert all(torch.equal(value, saved[key]) for key, value in model.state_dict().items())
    assert "layers are FrozenBatchNorm2d" not in caplog.text


def test_a_checkpoint_of_another_kind_of_run_is_one_line(spec, tmp_path, capsys):
    arguments = ["--config-file", "domains/shapes.py", *overrides(spec, tmp_path, **{"train.max_iter": 1})]
    assert main(arguments) == 0
    file = tmp_path / "model_final.pth"
    checkpoint = torch.load(file, weights_only=True)
    del checkpoint["trainer"]
    torch.save(checkpoint, file)
    assert main([*arguments, "--resume", "train.max_iter=2"]) == 2
    assert re.search(
        r"^error: the checkpoint in .* does not fit this run \(KeyError: trainer\)", capsys.readouterr().err, re.M
    )


def test_the_predictions_of_a_run_are_those_of_its_best_weights(spec, tmp_path):
    """The rate grows during the warm-up, so that the first weights are the "best" ones."""
    best = {"train.best.metric": "lr", "train.best.mode": "min", "train.best.evaluate": True}
    run = overrides(spec, tmp_path / "run", **{"train.max_iter": 2, "train.eval_period": 1, **best})
    assert main(["--config-file", "domains/shapes.py", *run]) == 0
    log = (tmp_path / "run/log.txt").read_text()
    assert log.count("Start inference on") == 3
    assert "Evaluating model_best, of iteration 0" in log
    evaluated = overrides(spec, tmp_path / "best", **{"train.init_checkpoint": tmp_path / "run/model_best.pth"})
    assert main(["--config-file", "domains/shapes.py", "--eval-only", *evaluated]) == 0
    found, expected = (
        json.loads((tmp_path / name / "inference/coco_instances_results.json").read_text()) for name in ("run", "best")
    )
    assert found == expected
