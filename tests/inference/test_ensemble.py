"""An ensemble returns the fused predictions of its models, alone, in batches, in tiles and on the command line."""

import json
import shutil

import numpy as np
import pytest
import torch

from maskrcnn_ext.cli import main
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.inference.ensemble import EnsemblePredictor
from maskrcnn_ext.inference.fusion import fuse_predictions
from maskrcnn_ext.inference.loading import members_of
from maskrcnn_ext.inference.predictor import Predictor
from maskrcnn_ext.inference.tiling.predictor import TiledPredictor
from tests.inference.jobs.conftest import data, run, spec  # noqa: F401 (fixtures)

pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid")


@pytest.fixture(scope="module")
def folds(run, tmp_path_factory):
    """The folder of two folds whose weights differ."""
    folder = tmp_path_factory.mktemp("folds")
    (folder / "config.yaml").write_text("{}")
    for number in (1, 2):
        shutil.copytree(run, folder / f"fold_{number}")
    for file in (folder / "fold_2").glob("*.pth"):
        content = torch.load(file, weights_only=False)
        for name, weights in content["model"].items():
            if name.startswith("roi_heads.mask_head.predictor") or name.startswith("roi_heads.box_predictor"):
                content["model"][name] = weights * 1.1
        torch.save(content, file)
    return folder


@pytest.fixture(scope="module")
def ensemble(folds):
    return EnsemblePredictor(members_of(str(folds)), device="cpu")


@pytest.fixture(scope="module")
def files(data):
    return sorted((data.parent / "images").iterdir())[:3]


def assert_same(one, other):
    assert len(one) == len(other) > 0
    torch.testing.assert_close(one.pred_boxes.tensor, other.pred_boxes.tensor, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(one.scores, other.scores, rtol=1e-4, atol=1e-5)
    assert one.pred_masks.rles == other.pred_masks.rles


def test_predictions_of_its_models_are_fused(ensemble, folds, files):
    singles = [Predictor(fold, device="cpu") for fold in members_of(str(folds))]
    expected = [fuse_predictions([single(str(file)) for single in singles]) for file in files]
    for found, own in zip(ensemble.predict(map(str, files), batch_size=2), expected, strict=True):
        assert_same(found, own)
    assert_same(ensemble(str(files[0])), expected[0])
    assert len(expected[0]) < sum(len(single(str(files[0]))) for single in singles)


def test_optimized_models_predict_the_same(ensemble, folds, files):
    optimized = EnsemblePredictor(members_of(str(folds)), device="cpu", optimize=True)
    found, expected = optimized(str(files[0])), ensemble(str(files[0]))
    assert len(found) == len(expected) > 0
    torch.testing.assert_close(found.pred_boxes.tensor, expected.pred_boxes.tensor, rtol=1e-4, atol=0.05)
    torch.testing.assert_close(found.scores, expected.scores, rtol=1e-3, atol=1e-3)


def test_in_tiles(ensemble, files):
    found = TiledPredictor(ensemble, tile=64)(str(files[0]))
    assert len(found)
    assert found.image_size == (96, 96)
    assert np.asarray(found.pred_masks[0]).shape == (96, 96)


def test_on_the_command_line(folds, files, ensemble, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["predict", str(folds), str(files[0]), "-o", str(out), "--device", "cpu"]) == 0
    results = json.loads((out / "predictions.json").read_text())
    assert len(results) == len(ensemble(str(files[0])))
    assert list((out / "overlays").iterdir())
    assert "weights: 2 models: " in capsys.readouterr().out
    runs = [str(folds / "fold_1"), str(folds / "fold_2")]
    assert main(["predict", *runs, str(files[0]), "-o", str(out), "--device", "cpu"]) == 0
    assert "1 image (1 known from an earlier run)" in capsys.readouterr().out
    assert json.loads((out / "predictions.json").read_text()) == results
    assert main(["predict", *runs, str(files[0]), "-o", str(out), "--weights", "a.pth"]) == 2
    assert main(["predict", *runs, str(files[0]), "-o", str(out), "--ray", "2"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert "--weights a.pth: 2 models have their own weights" in errors[0]
    assert "--ray predicts with one model, 2 are given" in errors[1]


def test_models_of_other_classes_are_one_line(folds, monkeypatch):
    from maskrcnn_ext.data.registry.classes import Classes

    first, second = (Predictor(fold, device="cpu") for fold in members_of(str(folds)))
    second.classes = Classes(("cat", "dog"), (1, 2))
    loaded = iter([first, second])
    monkeypatch.setattr("maskrcnn_ext.inference.ensemble.Predictor", lambda *_, **__: next(loaded))
    with pytest.raises(
        InputError, match=r"b has the classes cat, dog, a has .*: an ensemble needs models of the same classes"
    ):
        EnsemblePredictor(["a", "b"])


def test_a_fold_that_is_not_trained(tmp_path):
    assert members_of(str(tmp_path)) == []
    (tmp_path / "fold_1").mkdir()
    assert members_of(str(tmp_path)) == [], "a folder of images"
    (tmp_path / "fold_1/config.py").touch()
    with pytest.raises(InputError, match="fold_1 has no checkpoint"):
        members_of(str(tmp_path))
