"""``maskrcnn-ext import-weights`` writes configs that predict and train, and reports wrong input in one line."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torchvision.models import detection
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from maskrcnn_ext.cli import main
from maskrcnn_ext.engine.main import train
from maskrcnn_ext.inference.predictor import Predictor

NAMES = ("disc", "rectangle", "triangle", "star", "ring")


@pytest.fixture(scope="module")
def state():
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, trainable_layers=5)
    return detection.MaskRCNN(backbone, len(NAMES) + 1).state_dict()


@pytest.fixture
def file(state, tmp_path):
    torch.save(state, tmp_path / "source.pth")
    return tmp_path / "source.pth"


def run(file, *options, framework="torchvision"):
    return main(["import-weights", str(file), "--from", framework, *map(str, options)])


def test_the_written_config_predicts(file, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(file, "-o", out, "--classes", ",".join(NAMES)) == 0
    printed = capsys.readouterr()
    for name in ("model.pth", "config.yaml", "classes.json"):
        assert name in printed.out
    for command in ("maskrcnn-ext predict", "maskrcnn-ext train-net --config-file"):
        assert command in printed.err
    assert [entry["name"] for entry in json.loads((out / "classes.json").read_text())["categories"]] == list(NAMES)
    predictor = Predictor(
        out / "config.yaml", device="cpu", overrides=["dataloader.test.mapper.augmentations.0.short_edge_length=64"]
    )
    assert predictor.classes.names == NAMES
    predictor(np.zeros((40, 50, 3), np.uint8))


@pytest.mark.slow
def test_the_written_config_trains(file, shapes, tmp_path):
    out = tmp_path / "out"
    assert run(file, "-o", out) == 0
    spec = f"coco:{shapes}@{shapes.parent / 'images'}"
    overrides = {
        "dataloader.train.dataset.names": spec,
        "dataloader.test.dataset.names": spec,
        "dataloader.train.total_batch_size": 2,
        "dataloader.train.num_workers": 0,
        "dataloader.train.mapper.instance_mask_format": "bitmask",
        "dataloader.train.mapper.augmentations.0.short_edge_length": "[64]",
        "model.roi_heads.batch_size_per_image": 16,
        "train.output_dir": tmp_path / "run",
        "train.max_iter": 1,
        "train.eval_period": 0,
        "train.device": "cpu",
        "train.loading.strict": "body",
    }
    assert (
        train(["--config-file", str(out / "config.yaml"), *(f"{key}={value}" for key, value in overrides.items())]) == 0
    )
    assert (tmp_path / "run/model_final.pth").is_file()


def test_verbose_lists_every_key_and_files_need_overwrite(file, state, tmp_path, capsys):
    assert run(file, "-o", tmp_path / "out", "--verbose") == 0
    printed = capsys.readouterr().out
    assert all(key in printed for key in state)
    assert run(file, "-o", tmp_path / "out") == 2
    assert "exists already" in capsys.readouterr().err
    assert run(file, "-o", tmp_path / "out", "--overwrite") == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--style", "caffe"], "--style does not apply to --from torchvision"),
        (["--classes", "a,b"], "2 class names for the model's 5 classes"),
    ],
)
def test_options_that_do_not_fit(file, options, message, tmp_path, capsys):
    assert run(file, "-o", tmp_path / "out", *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out/model.pth").exists()


class Evil:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


BROKEN = {
    "empty": b"",
    "text": b"these are not the weights",
    "foreign": b"\x89HDF\r\n\x1a\n" + bytes(100),
}


@pytest.mark.parametrize("framework", ["torchvision", "mmdet", "detectron2"])
@pytest.mark.parametrize("kind", [*BROKEN, "absent", "truncated", "malicious", "a number", "other keys", "a model"])
def test_broken_files_are_one_line(file, framework, kind, tmp_path, capsys):
    broken = tmp_path / "broken.pth"
    if kind in BROKEN:
        broken.write_bytes(BROKEN[kind])
    elif kind == "truncated":
        broken.write_bytes(file.read_bytes()[:-1000])
    elif kind != "absent":
        content = {
            "malicious": Evil(tmp_path / "ran"),
            "a number": 3,
            "other keys": {"a.weight": torch.zeros(2)},
            "a model": {"model": torch.nn.Linear(2, 2)},
        }
        torch.save(content[kind], broken)
    style = ["--style", "caffe"] if framework == "mmdet" else []
    assert run(broken, "-o", tmp_path / "out", *style, framework=framework) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(broken) in error
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "out").exists()
