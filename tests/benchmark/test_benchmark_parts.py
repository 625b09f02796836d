"""The parts of `maskrcnn-ext benchmark`, at sizes that say nothing: every side is there, with finite values, and works on the same."""

import json
import math
import os

import numpy as np
import pytest
import torch

from maskrcnn_ext.benchmark import growth, inference, models, training
from maskrcnn_ext.benchmark.measuring import in_new_process
from maskrcnn_ext.cli import main

SMALL = "mask_rcnn_r18_fpn_scratch.py"
SIZE = (64, 96)
STOCK_AND_OURS = ["Detectron2", "maskrcnn_ext"]


@pytest.fixture
def tables(tmp_path, capsys):
    """Runs a part and returns its tables as they are written; every number in them is finite."""

    def run(*arguments):
        assert main(["benchmark", *map(str, arguments), "--repeats", "1", "-o", str(tmp_path)]) == 0
        assert capsys.readouterr().out.startswith("### ")
        written = json.loads((tmp_path / "results.json").read_text())["tables"]
        for row in (row for table in written for row in table["rows"]):
            numbers = [*row["seconds"], *(value for value in row["values"].values() if not isinstance(value, str))]
            assert numbers
            assert all(map(math.isfinite, numbers))
        return written

    return run


def sides(table):
    return [row["side"] for row in table["rows"]]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return models.detectron2_weights(tmp_path_factory.mktemp("weights") / "model.pth", SMALL, [models.NO_RESIZE], SIZE)


def test_the_image_is_smooth_and_always_the_same():
    image = models.photograph(120, 80, seed=3)
    assert image.shape == (120, 80, 3)
    assert (image == models.photograph(120, 80, seed=3)).all()
    assert (image != models.photograph(120, 80, seed=4)).any()
    values = image.astype(float)
    assert 30 < values.std() < 60
    assert np.abs(np.diff(values, axis=0)).mean() < 0.2 * values.std()


def test_random_weights_find_as_many_as_trained_ones(weights):
    model = models.detectron2_model(SMALL, weights, [models.NO_RESIZE], device="cpu")
    image = models.to_tensor(models.photograph(*SIZE))
    with torch.inference_mode():
        features = model.backbone(model.preprocess_image([{"image": image}]).tensor)
        (found,) = model([{"image": image}])
    assert all(0.05 < level.std() < 20 for level in features.values())
    instances = found["instances"]
    assert len(instances) == 100
    assert len(set(instances.pred_classes.tolist())) > 5
    filled = instances.pred_masks.flatten(1).sum(1) / instances.pred_boxes.area()
    assert 0.2 < filled.median() < 0.9


def test_torchvision_finds_as_many(tmp_path):
    file = models.torchvision_weights(tmp_path / "weights.pth", SIZE)
    case = inference.Case(tmp_path, SMALL, SIZE, 1, 1)
    file.rename(tmp_path / "torchvision.pth")
    found = inference.open_side("torchvision", case)([models.photograph(*SIZE)])
    assert inference.count(found) == 100
    assert found[0]["masks"].shape == (100, 1, *SIZE)


def test_stock_and_ours_take_the_same_step(weights):
    case = (SMALL, str(weights), SIZE, 1, 4)
    losses = []
    for name in STOCK_AND_OURS:
        step = training.open_step(name, *case)
        torch.manual_seed(0)
        losses.append(step())
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_a_part_in_a_process_of_its_own_can_measure_in_others():
    assert in_new_process(in_new_process, os.getpid) != os.getpid()


@pytest.mark.parametrize("argument", ["--size=64", "--size=0x64", "--batch=0"])
def test_sizes_that_cannot_be_are_refused(argument, capsys):
    with pytest.raises(SystemExit):
        main(["benchmark", "inference", argument])
    assert f"invalid {'size' if 'size' in argument else 'positive'} value" in capsys.readouterr().err


def test_slopes_are_those_of_the_curve():
    found = growth.slope("", "image", [1, 2, 4, 8], [3 * n**1.5 for n in (1, 2, 4, 8)], [5, 8, 14, 26])
    assert found.values["power"] == pytest.approx(1.5)
    assert found.values["MB per unit"] == pytest.approx(3)


def test_roofline_of_every_part(tables):
    (table,) = tables("roofline", "--config", SMALL, "--size", "64x96", "--matrix", "64", "--copy", "1")
    assert sides(table) == [
        *("image to tensor", "backbone and FPN", "RPN head", "proposals", "box pooling", "box head"),
        *("boxes to detections", "mask pooling", "mask head", "masks to the image", "all"),
    ]
    of = {row["side"]: row["values"] for row in table["rows"]}
    # 100 masks: four convolutions of 128 channels and 3 x 3 on 14 x 14, the deconvolution to 28 x 28, 80 classes.
    macs = 100 * 14 * 14 * (4 * 9 * 128**2 + 4 * 128**2 + 4 * 128 * 80)
    assert of["mask head"]["GFLOP"] == pytest.approx(2 * macs / 1e9)
    pyramid = sum(SIZE[0] * SIZE[1] // stride**2 for stride in (4, 8, 16, 32)) * 128 * 4
    pooled = 100 * 128 * 14 * 14 * 4
    assert of["mask pooling"]["MB"] == pytest.approx((pyramid + pooled + 100 * 5 * 4) / 1e6)
    for side in STOCK_AND_OURS:
        parts = sum(values[f"{side} ms"] for name, values in of.items() if name != "all")
        assert parts == pytest.approx(of["all"][f"{side} ms"], rel=0.05)


def test_loading_is_compared_with_training(tables):
    (table,) = tables("loading", "--images", 12, "--batches", 1, "--workers", 0)
    assert sides(table) == ["Detectron2's mapper, 0 workers", "maskrcnn_ext's mapper, 0 workers", "training"]
    assert table["rows"][-1]["values"]["of the training's"] == 1


@pytest.mark.slow
def test_inference_in_every_runtime_that_is_installed(tables):
    (table,) = tables("inference", "--config", SMALL, "--size", "64x96")
    names = [name for name in inference.SIDES if models.computes_bf16() or not name.endswith("bf16")]
    assert [name for name in names if name not in sides(table)] == [
        name for name in ("ONNX Runtime", "OpenVINO") if f"Not measured: {name}" in table["note"]
    ]
    assert all(row["values"]["detections"] == 100 for row in table["rows"])
    assert all(row["values"]["peak MB"] > row["values"]["grows by MB"] >= 0 for row in table["rows"])


@pytest.mark.slow
def test_inference_of_a_batch_finds_the_same_in_every_runtime(tables):
    (table,) = tables("inference", "--config", SMALL, "--size", "96x128", "--batch", 2)
    found = {row["side"]: row["values"]["detections"] for row in table["rows"] if "bf16" not in row["side"]}
    assert all(abs(found[name] - found["Detectron2"]) <= 2 for name in found if name != "torchvision")
    assert 150 < found["Detectron2"] <= 200


@pytest.mark.slow
def test_inference_and_training_run_in_bf16_on_any_processor(weights, tmp_path):
    (tmp_path / "detectron2.pth").symlink_to(weights)
    case = inference.Case(tmp_path, SMALL, SIZE, 1, torch.get_num_threads())
    for name in STOCK_AND_OURS:
        assert inference.count(inference.open_side(f"{name}, bf16", case)([models.photograph(*SIZE)])) > 50
        assert 0 < training.open_step(f"{name}, bf16", SMALL, str(weights), SIZE, 1, 3)() < 100


@pytest.mark.slow
def test_training_has_memory(tables):
    (table,) = tables("training", "--config", SMALL, "--size", "64x96", "--batch", 1, "--objects", 3)
    assert sides(table)[:2] == STOCK_AND_OURS
    assert all(row["values"]["peak MB"] > row["values"]["grows by MB"] > 0 for row in table["rows"])


@pytest.mark.slow
def test_startup_has_every_step(tables):
    commands, built, optimized, first, second = tables("startup", "--config", SMALL, "--size", "64x96")
    assert sides(commands)[0] == "python -c pass"
    assert [sides(table) for table in (built, first, second)] == [STOCK_AND_OURS] * 3
    assert sides(optimized) == ["maskrcnn_ext"]


@pytest.mark.slow
def test_growth_has_slopes_of_what_has_several_values(tables):
    values = ("--side", 64, 96, "--batch", 1, "--instances", 2, 20, "--classes", 3)
    image, batch, instances, classes, slopes = tables("growth", "--config", SMALL, *values)
    assert [sides(table) for table in (image, batch, instances, classes)] == [["64", "96"], ["1"], ["2", "20"], ["3"]]
    assert [row["values"]["detections"] for row in instances["rows"]] == [2, 20]
    assert sides(slopes) == [
        f"{axis}: {side}" for axis in ("side of the image", "instances") for side in STOCK_AND_OURS
    ]
