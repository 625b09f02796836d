"""Jobs: results and outputs are complete, also after a kill and when inputs, settings or files change."""

import json
import shutil
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from maskrcnn_ext.cli import main
from maskrcnn_ext.common.lock import lock_folder
from maskrcnn_ext.inference.predictor import Predictor as PredictorClass

pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid")
ALL = "overlays,crops,cutouts,polygons,labels,splash"


def results(folder):
    return json.loads((folder / "predictions.json").read_text())


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_folder_gets_results_and_every_output(predict, images, tmp_path, capsys):
    assert predict(images, "--save", ALL, "--threshold", 0.85, "--batch", 3) == 0
    out = tmp_path / "out"
    output = capsys.readouterr().out
    assert "6 images, " in output
    assert f"overlays: {out / 'overlays'}" in output
    for kind, suffix in (("overlays", "png"), ("splash", "png"), ("labels", "png"), ("polygons", "geojson")):
        assert sorted(p.name for p in (out / kind).iterdir()) == [f"{n:06d}.{suffix}" for n in range(1, 7)]
    found = results(out)
    strong = [result for result in found if result["score"] >= 0.85]
    assert 0 < len(strong) < len(found)
    assert len(list(out.glob("crops/*/*.png"))) == len(list(out.glob("cutouts/*/*.png"))) == len(strong)
    assert f"{len(strong)} objects with a score of at least 0.85" in output
    features = [json.loads(file.read_text())["features"] for file in (out / "polygons").iterdir()]
    assert sum(map(len, features)) <= len(strong)
    table = json.loads((out / "images.json").read_text())
    assert [image["id"] for image in table["images"]] == [1, 2, 3, 4, 5, 6]
    assert table["images"][0] == {"id": 1, "file_name": str(images / "000001.jpg"), "height": 96, "width": 96}
    assert table["categories"][0]["name"] == "disc"
    assert not (out / "failed.txt").exists()
    assert not list(out.rglob(".*"))


def test_the_results_equal_the_predictors(predict, run, images, tmp_path):
    assert predict(images, "--batch", 4, "--save", "json") == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["images.json", "journal.jsonl", "predictions.json"]
    predictor = PredictorClass(run, device="cpu")
    for number, file in enumerate(sorted(images.iterdir()), start=1):
        own = [result for result in results(tmp_path / "out") if result["image_id"] == number]
        expected = predictor(file)
        assert [result["score"] for result in own] == pytest.approx(expected.scores.tolist(), abs=1e-4)


def test_results_of_a_data_set_can_be_evaluated(predict, data, spec, tmp_path):
    content = json.loads(data.read_text())
    for number, image in enumerate(content["images"]):
        image["id"] = 1000 - 3 * number
    for annotation in content["annotations"]:
        annotation["image_id"] = 1000 - 3 * (annotation["image_id"] - 1)
        annotation["category_id"] += 10
    for category in content["categories"]:
        category["id"] += 10
    (tmp_path / "own.json").write_text(json.dumps(content))
    assert predict(f"coco:{tmp_path / 'own.json'}@{data.parent / 'images'}", "--save", "json") == 0
    found = results(tmp_path / "out")
    assert {result["image_id"] for result in found} <= {1000 - 3 * number for number in range(6)}
    assert {result["category_id"] for result in found} <= set(range(11, 16))
    truth = COCO(str(tmp_path / "own.json"))
    evaluation = COCOeval(truth, truth.loadRes(str(tmp_path / "out/predictions.json")), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    assert np.isfinite(evaluation.eval["precision"]).all()
    assert COCO(str(tmp_path / "out/images.json")).loadRes(str(tmp_path / "out/predictions.json")).anns


def test_a_second_run_predicts_nothing_and_makes_missing_outputs(predict, images, tmp_path, counted):
    assert predict(images, "--save", ALL) == 0
    assert len(counted) == 6
    before = files(tmp_path / "out")
    (tmp_path / "out/predictions.json").unlink()
    (tmp_path / "out/overlays/000002.png").unlink()
    shutil.rmtree(tmp_path / "out/crops")
    kept = (tmp_path / "out/splash/000001.png").stat().st_mtime_ns
    assert predict(images, "--save", ALL) == 0
    assert len(counted) == 6
    after = files(tmp_path / "out")
    del before["journal.jsonl"], after["journal.jsonl"]
    assert after == before
    assert (tmp_path / "out/splash/000001.png").stat().st_mtime_ns == kept


def test_another_threshold_makes_outputs_again_without_predicting(predict, images, tmp_path, counted):
    assert predict(images, "--save", "crops,labels", "--threshold", 0.2) == 0
    many = len(list((tmp_path / "out").glob("crops/*/*.png")))
    before = files(tmp_path / "out/labels")
    assert predict(images, "--save", "crops,labels", "--threshold", 0.85) == 0
    strong = [result for result in results(tmp_path / "out") if result["score"] >= 0.85]
    assert len(list((tmp_path / "out").glob("crops/*/*.png"))) == len(strong) < many
    assert files(tmp_path / "out/labels") != before
    assert len(counted) == 6


def test_changed_and_new_images_are_predicted(predict, images, tmp_path, counted):
    assert predict(images) == 0
    overlay = (tmp_path / "out/overlays/000002.png").read_bytes()
    shutil.copy(images / "000001.jpg", images / "000002.jpg")
    shutil.copy(images / "000001.jpg", images / "0.jpg")
    assert predict(images) == 0
    assert len(counted) == 8
    assert (tmp_path / "out/overlays/000002.png").read_bytes() != overlay
    by_image = [[r["score"] for r in results(tmp_path / "out") if r["image_id"] == number] for number in (1, 2, 3)]
    assert by_image[0] == by_image[1] == by_image[2]  # now 0, 000001 and 000002
    assert predict(images, "--restart") == 0
    assert len(counted) == 15


def test_another_folder_with_the_same_names_gets_its_own_outputs(predict, images, tmp_path):
    """Two folders with files of the same names, in turn."""
    other = tmp_path / "other"
    shutil.copytree(images, other)
    shutil.copy(images / "000001.jpg", other / "000002.jpg")
    pictures = []
    for folder in (images, other, images):
        assert predict(folder) == 0
        pictures.append((tmp_path / "out/overlays/000002.png").read_bytes())
    assert pictures[0] == pictures[2] != pictures[1]


def test_other_settings_are_refused_in_the_same_folder(predict, run, images, tmp_path, capsys):
    assert predict(images, "--save", "json") == 0
    capsys.readouterr()
    assert predict(images, "--set", "model.roi_heads.box_predictor.test_topk_per_image=2") == 2
    error = capsys.readouterr().err
    assert "was started with other settings (overrides was [], is" in error
    assert error.count("\n") == 1
    assert predict(images, "--set", "model.roi_heads.box_predictor.test_topk_per_image=2", "--restart") == 0
    assert len(results(tmp_path / "out")) == 12


def test_a_killed_run_continues(run, data, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for number in range(30):
        shutil.copy(data.parent / "images" / f"{number % 6 + 1:06d}.jpg", images / f"{number}.jpg")
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "maskrcnn_ext",
        "predict",
        str(run),
        str(images),
        "-o",
        str(out),
        "--save",
        "overlays",
    ]
    command += ["--device", "cpu"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not (out / "overlays/3.png").exists() and time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    assert not (out / "predictions.json").exists()
    done = (out / "journal.jsonl").read_bytes().count(b'"results"')
    assert 4 <= done < 30
    assert main(command[3:]) == 0
    assert (out / "journal.jsonl").read_bytes().count(b'"results"') == 30
    assert {result["image_id"] for result in results(out)} <= set(range(1, 31))
    assert len(list((out / "overlays").glob("*.png"))) == 30
    assert not list(out.rglob(".*"))
    first = [{**r, "image_id": 0} for r in results(out) if r["image_id"] == 1]
    assert first == [{**r, "image_id": 0} for r in results(out) if r["image_id"] == 7]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_keeps_finished_images_and_continues(predict, images, tmp_path, capsys, monkeypatch, number):
    seen, batch = [], PredictorClass._predict_batch

    def noted(self, inputs):
        seen.extend(inputs)
        if len(seen) == 5:
            signal.raise_signal(number)
        return batch(self, inputs)

    monkeypatch.setattr(PredictorClass, "_predict_batch", noted)
    assert predict(images, "--save", "json") == 75
    line = f"maskrcnn-ext predict: stopped by {number.name}; finished images are kept: the same command continues"
    assert line in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["journal.jsonl"]
    assert predict(images, "--save", "json") == 0
    assert len(results(tmp_path / "out")) > 0
    assert len(seen) == 5 + 2


@pytest.mark.parametrize("arguments", [[], ["--restart"]])
def test_a_folder_that_another_run_writes_is_left_alone(predict, images, tmp_path, capsys, arguments):
    assert predict(images, "--save", "json") == 0
    before = files(tmp_path / "out")
    with lock_folder(tmp_path / "out"):
        assert predict(images, "--save", "json", *arguments) == 2
    assert "is writing into it: wait for it or stop it, or choose another folder" in capsys.readouterr().err
    assert files(tmp_path / "out") == before


def test_outputs_of_images_below_a_folder_with_the_name_of_an_image_stay(predict, images, tmp_path):
    (images / "a.png").mkdir()
    (images / "a").mkdir()
    photo = images / "000001.jpg"
    for name in ("a/b.jpg", "a.png/c.jpg", "a.jpg"):
        shutil.copy(photo, images / name)
    given = [images / name for name in ("a/b.jpg", "a.png/c.jpg", "a.jpg")]
    assert predict(*given, "--save", "overlays,crops", "--threshold", 0.85) == 0
    out = tmp_path / "out"
    overlays = sorted(
        str(path.relative_to(out / "overlays")) for path in out.glob("overlays/**/*.png") if path.is_file()
    )
    assert overlays == ["a.png/c.png", "a/b.png", "a_2.png"]
    counts = [len(list((out / "crops" / name).glob("*.png"))) for name in ("a/b", "a.png/c", "a_2")]
    assert counts[0] == counts[1] == counts[2] > 0


def test_names_at_the_limit_of_the_file_system_are_shortened(predict, images, tmp_path):
    shutil.copy(images / "000001.jpg", images / f"{'n' * 250}.jpg")
    shutil.copy(images / "000001.jpg", images / f"{'n' * 249}m.jpg")
    assert predict(images, "--save", ALL, "--threshold", 0.85) == 0
    assert len(list((tmp_path / "out/polygons").glob("nnn*~*.geojson"))) == 2


def test_a_path_that_is_too_long_fails_its_image_only(predict, images, tmp_path, monkeypatch):
    monkeypatch.setattr("maskrcnn_ext.inference.sources._LONGEST_NAME", 300)
    shutil.copy(images / "000001.jpg", images / f"{'n' * 250}.jpg")
    assert predict(images, "--save", "polygons") == 3
    assert "polygons: cannot write" in (tmp_path / "out/failed.txt").read_text()
    assert len(list((tmp_path / "out/polygons").iterdir())) == 6


def test_tiles_predict_a_large_image(predict, images, tmp_path):
    tiles = [cv2.imread(str(images / f"00000{n}.jpg")) for n in (1, 2, 3, 4)]
    cv2.imwrite(str(images / "large.png"), np.vstack([np.hstack(tiles[:2]), np.hstack(tiles[2:])]))
    assert predict(images / "large.png", "--tile", 96, "--overlap", 0.25, "--save", "labels,polygons") == 0
    found = results(tmp_path / "out")
    assert {tuple(result["segmentation"]["size"]) for result in found} == {(192, 192)}
    assert max(result["bbox"][0] for result in found) > 96
    assert predict(images / "large.png", "--tile", 64) == 2


def test_a_full_disk_ends_the_run_in_one_line(predict, images, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/overlays").write_text("a file where a folder has to be")
    assert predict(images) == 2
    assert "cannot write" in capsys.readouterr().err
    assert not (tmp_path / "out/predictions.json").exists()
