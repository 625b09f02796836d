"""`maskrcnn-ext predict`: all that is asked for is there, whatever stops it and whatever is broken."""

import io
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
from maskrcnn_ext.data.tools.shapes import make_shapes
from maskrcnn_ext.inference.predictor import Predictor as PredictorClass
from maskrcnn_ext.inference.video.frames import VideoReader, VideoWriter
from tests.helpers.small_model import make_run

pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid")
ALL = "overlays,crops,cutouts,polygons,labels,splash"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_shapes(tmp_path_factory.mktemp("data"), num_images=6, size=96)


@pytest.fixture(scope="module")
def spec(data):
    return f"coco:{data}@{data.parent / 'images'}"


@pytest.fixture(scope="module")
def run(tmp_path_factory, spec):
    return make_run(tmp_path_factory.mktemp("run"), spec)


@pytest.fixture
def images(data, tmp_path):
    shutil.copytree(data.parent / "images", tmp_path / "images")
    return tmp_path / "images"


@pytest.fixture(scope="module")
def loaded():
    return {}


@pytest.fixture
def predict(run, tmp_path, loaded, monkeypatch):
    """Runs the command; returns the status. What one test has loaded, the next one need not."""

    def load(*arguments, **keywords):
        key = repr((arguments, keywords))
        if key not in loaded:
            loaded[key] = PredictorClass(*arguments, **keywords)
        return loaded[key]

    monkeypatch.setattr("maskrcnn_ext.inference.predictor.Predictor", load)

    def call(*arguments, config=run):
        return main(["predict", str(config), *map(str, arguments), "-o", str(tmp_path / "out"), "--device", "cpu"])

    return call


@pytest.fixture
def counted(monkeypatch):
    """Counts the images that the model is given."""
    seen = []
    batch = PredictorClass._predict_batch

    def noted(self, inputs):
        seen.extend(inputs)
        return batch(self, inputs)

    monkeypatch.setattr(PredictorClass, "_predict_batch", noted)
    return seen


def results(folder):
    return json.loads((folder / "predictions.json").read_text())


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_folder_gets_results_and_every_output(predict, images, tmp_path, capsys):
    assert predict(images, "--save", ALL, "--threshold", 0.85, "--batch", 3) == 0
    out = tmp_path / "out"
    told = capsys.readouterr().out
    assert "6 images, " in told
    assert f"overlays: {out / 'overlays'}" in told
    for kind, suffix in (("overlays", "png"), ("splash", "png"), ("labels", "png"), ("polygons", "geojson")):
        assert sorted(p.name for p in (out / kind).iterdir()) == [f"{n:06d}.{suffix}" for n in range(1, 7)]
    found = results(out)
    strong = [result for result in found if result["score"] >= 0.85]
    assert 0 < len(strong) < len(found)
    assert len(list(out.glob("crops/*/*.png"))) == len(list(out.glob("cutouts/*/*.png"))) == len(strong)
    assert f"{len(strong)} objects with a score of at least 0.85" in told
    features = [json.loads(file.read_text())["features"] for file in (out / "polygons").iterdir()]
    assert sum(map(len, features)) <= len(strong)
    table = json.loads((out / "images.json").read_text())
    assert [image["id"] for image in table["images"]] == [1, 2, 3, 4, 5, 6]
    assert table["images"][0] == {"id": 1, "file_name": str(images / "000001.jpg"), "height": 96, "width": 96}
    assert table["categories"][0]["name"] == "disc"
    assert not (out / "failed.txt").exists()
    assert not list(out.rglob(".*"))


def test_the_results_are_those_of_the_predictor(predict, run, images, tmp_path):
    assert predict(images, "--batch", 4, "--save", "json") == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["images.json", "journal.jsonl", "predictions.json"]
    predictor = PredictorClass(run, device="cpu")
    for number, file in enumerate(sorted(images.iterdir()), start=1):
        own = [result for result in results(tmp_path / "out") if result["image_id"] == number]
        expected = predictor(file)
        assert [result["score"] for result in own] == pytest.approx(expected.scores.tolist(), abs=1e-4)


def test_results_of_a_data_set_are_evaluated_against_it(predict, data, spec, tmp_path):
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


def test_one_bad_image_does_not_end_the_run_and_is_listed(predict, images, tmp_path, capsys):
    (images / "000002.jpg").write_bytes(b"no image")
    content = (images / "000004.jpg").read_bytes()
    (images / "000004.jpg").write_bytes(content[: len(content) // 2])
    assert predict(images, "--batch", 2) == 3
    lines = (tmp_path / "out/failed.txt").read_text().splitlines()
    assert [line.partition(": ")[0] for line in lines] == [str(images / "000002.jpg"), str(images / "000004.jpg")]
    error = capsys.readouterr().err
    assert "2 failed" in error
    assert all(line in error for line in lines)
    assert {result["image_id"] for result in results(tmp_path / "out")} == {1, 3, 5, 6}
    # Mended, it is predicted in the next run, and the list goes.
    (images / "000002.jpg").write_bytes(content)
    (images / "000004.jpg").write_bytes(content)
    assert predict(images) == 0
    assert {result["image_id"] for result in results(tmp_path / "out")} == set(range(1, 7))
    assert not (tmp_path / "out/failed.txt").exists()


def test_an_image_on_which_the_model_fails_costs_its_batch_nothing(predict, images, tmp_path, monkeypatch):
    cv2.imwrite(str(images / "000003.jpg"), np.full((96, 96, 3), 255, np.uint8))
    batch = PredictorClass._predict_batch

    def short_of_memory(self, inputs):
        if any(float(image["image"].float().mean()) > 250 for image in inputs):
            raise RuntimeError("out of memory:\n tried to allocate 7 EiB")
        return batch(self, inputs)

    monkeypatch.setattr(PredictorClass, "_predict_batch", short_of_memory)
    assert predict(images, "--batch", 6) == 3
    line = f"{images / '000003.jpg'}: RuntimeError: out of memory: tried to allocate 7 EiB\n"
    assert (tmp_path / "out/failed.txt").read_text() == line
    assert {result["image_id"] for result in results(tmp_path / "out")} == {1, 2, 4, 5, 6}


def test_a_second_run_predicts_nothing_and_makes_what_is_missing(predict, images, tmp_path, counted):
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


def test_another_threshold_draws_anew_without_predicting(predict, images, tmp_path, counted):
    assert predict(images, "--save", "crops,labels", "--threshold", 0.2) == 0
    many = len(list((tmp_path / "out").glob("crops/*/*.png")))
    before = files(tmp_path / "out/labels")
    assert predict(images, "--save", "crops,labels", "--threshold", 0.85) == 0
    strong = [result for result in results(tmp_path / "out") if result["score"] >= 0.85]
    assert len(list((tmp_path / "out").glob("crops/*/*.png"))) == len(strong) < many
    assert files(tmp_path / "out/labels") != before
    assert len(counted) == 6


def test_images_that_change_or_come_later_are_predicted(predict, images, tmp_path, counted):
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


def test_a_folder_of_other_images_does_not_pass_for_the_first(predict, images, tmp_path):
    """Two folders with files of the same names, in turn."""
    other = tmp_path / "other"
    shutil.copytree(images, other)
    shutil.copy(images / "000001.jpg", other / "000002.jpg")
    pictures = []
    for folder in (images, other, images):
        assert predict(folder) == 0
        pictures.append((tmp_path / "out/overlays/000002.png").read_bytes())
    assert pictures[0] == pictures[2] != pictures[1]


def test_other_weights_or_settings_are_refused_in_the_same_folder(predict, run, images, tmp_path, capsys):
    assert predict(images, "--save", "json") == 0
    assert predict(images, "--set", "model.roi_heads.box_predictor.test_topk_per_image=2") == 2
    error = capsys.readouterr().err
    assert "was started with other settings (overrides was [], is" in error
    assert error.count("\n") == 1
    assert predict(images, "--set", "model.roi_heads.box_predictor.test_topk_per_image=2", "--restart") == 0
    assert len(results(tmp_path / "out")) == 12


def test_killed_it_goes_on_where_it_was(run, data, tmp_path):
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


def test_stdin_lists_paths(predict, images, tmp_path, monkeypatch):
    names = [images / "000003.jpg", images / "gone.jpg", images / "000001.jpg"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{name}\n" for name in names)))
    assert predict("-", "--save", "json") == 3
    table = json.loads((tmp_path / "out/images.json").read_text())["images"]
    assert [(image["id"], image["file_name"]) for image in table] == [(1, str(names[0])), (3, str(names[2]))]


def make_video(images, file, frames=6):
    still = cv2.resize(cv2.imread(str(images / "000002.jpg")), (128, 128))
    with VideoWriter(file, (96, 96), 10.0) as video:
        for number in range(frames):
            video.write(np.ascontiguousarray(still[3 * number : 96 + 3 * number, :96]))
    return file


def test_a_video_gets_a_video_tracks_and_frames(predict, images, tmp_path, counted):
    file = make_video(images, tmp_path / "clip.mp4")
    assert predict(file, "--track", "--save", "video,mots,labels", "--batch", 2) == 0
    out = tmp_path / "out"
    with VideoReader(out / "video/clip.mp4") as video:
        assert video.fps == pytest.approx(10)
        assert sum(1 for _ in video) == 6
    assert sorted(p.name for p in (out / "labels/clip").iterdir()) == [f"{n:06d}.png" for n in range(1, 7)]
    found = results(out)
    assert all("track_id" in result for result in found)
    assert {result["image_id"] for result in found} == set(range(1, 7))
    rows = (out / "mots/clip.txt").read_text().splitlines()
    assert {row.split()[0] for row in rows} == set("012345")
    table = json.loads((out / "images.json").read_text())["images"]
    assert table[2] == {"id": 3, "file_name": f"{file}@3", "height": 96, "width": 96}
    before = files(out)
    assert predict(file, "--track", "--save", "video,mots,labels") == 0
    assert len(counted) == 6
    after = files(out)
    assert after["mots/clip.txt"] == before["mots/clip.txt"]
    assert after["predictions.json"] == before["predictions.json"]


def test_frames_that_fail_stay_in_the_video(predict, images, tmp_path, monkeypatch):
    file = make_video(images, tmp_path / "clip.mp4")
    batch, calls = PredictorClass._predict_batch, []

    def second_fails(self, inputs):
        calls.append(inputs)
        if len(calls) in (2, 3, 4, 5, 6, 7, 8):
            raise RuntimeError("no")
        return batch(self, inputs)

    monkeypatch.setattr(PredictorClass, "_predict_batch", second_fails)
    assert predict(file, "--track", "--save", "video,mots") == 3
    with VideoReader(tmp_path / "out/video/clip.mp4") as video:
        assert sum(1 for _ in video) == 6
    assert f"{file}@" in (tmp_path / "out/failed.txt").read_text()


def test_images_and_videos_share_one_count(predict, images, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    clips = [make_video(images, tmp_path / "a/clip.mp4", 2), make_video(images, tmp_path / "b/clip.mp4", 3)]
    assert predict(images / "000001.jpg", *clips) == 0
    table = json.loads((tmp_path / "out/images.json").read_text())["images"]
    assert [image["id"] for image in table] == [1, 2, 3, 4, 5, 6]
    assert sorted(p.name for p in (tmp_path / "out/video").iterdir()) == ["clip.mp4", "clip_2.mp4"]


def test_tiles_find_what_is_in_a_large_image(predict, images, tmp_path):
    tiles = [cv2.imread(str(images / f"00000{n}.jpg")) for n in (1, 2, 3, 4)]
    cv2.imwrite(str(images / "large.png"), np.vstack([np.hstack(tiles[:2]), np.hstack(tiles[2:])]))
    assert predict(images / "large.png", "--tile", 96, "--overlap", 0.25, "--save", "labels,polygons") == 0
    found = results(tmp_path / "out")
    assert {tuple(result["segmentation"]["size"]) for result in found} == {(192, 192)}
    assert max(result["bbox"][0] for result in found) > 96
    assert predict(images / "large.png", "--tile", 64) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone"], "gone: no such file or folder"),
        (["IMAGES", "--save", "masks"], "--save masks: expected some of json"),
        (["IMAGES", "--save", "video"], "no INPUT is a video"),
        (["IMAGES", "--track"], "no INPUT is a video"),
        (["IMAGES", "--threshold", "50"], "expected a number from 0 to 1"),
        (["IMAGES", "--batch", "0"], "expected at least 1"),
        (["IMAGES", "--weights", "gone.pth"], "gone.pth"),
        (["IMAGES", "--set", "model.nothing=1"], "model.nothing"),
        (["IMAGES", "--tile", "0"], "tile"),
    ],
    ids=str,
)
def test_mistakes_are_one_line_and_status_2(predict, images, capsys, arguments, message):
    given = [images if argument == "IMAGES" else argument for argument in arguments]
    assert predict(*given) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_full_disk_ends_the_run_in_one_line(predict, images, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/overlays").write_text("a file where a folder has to be")
    assert predict(images) == 2
    assert "cannot write" in capsys.readouterr().err
    assert not (tmp_path / "out/predictions.json").exists()


def test_help_is_quick_and_imports_little(run_python):
    code = "import sys; from maskrcnn_ext.cli import main\ntry: main(['predict', '--help'])\nexcept SystemExit: pass\n"
    done = run_python("-c", code + "print(sorted({'torch', 'cv2', 'numpy'} & set(sys.modules)))")
    assert done.stdout.splitlines()[-1] == "[]"
    assert "--tile" in done.stdout
