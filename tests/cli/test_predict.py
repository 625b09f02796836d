"""`maskrcnn-ext predict`: mistakes are one line, and --help imports little."""

import io
import json
import shlex
import sys

import numpy as np
import pytest
import tifffile
from PIL import Image

from maskrcnn_ext.data.registry.catalog import load_dataset
from tests.inference.jobs.conftest import data, images, loaded, predict, run, spec  # noqa: F401 (fixtures)

pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid")


def test_stdin_lists_paths(predict, images, tmp_path, monkeypatch):
    names = [images / "000003.jpg", images / "gone.jpg", images / "000001.jpg"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{name}\n" for name in names)))
    assert predict("-", "--save", "json") == 3
    table = json.loads((tmp_path / "out/images.json").read_text())["images"]
    assert [(image["id"], image["file_name"]) for image in table] == [(1, str(names[0])), (3, str(names[2]))]


def test_without_an_image_that_can_be_read_nothing_follows(predict, tmp_path, capsys):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    assert predict(tmp_path / "broken.jpg") == 3
    shown = capsys.readouterr()
    assert "0 images" in shown.out
    assert "Next:" not in shown.out
    assert "overlays" not in shown.out
    assert "1 failed" in shown.err


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
        (["IMAGES", "--stitch", "0"], "--stitch 0: expected an IoU above 0"),
        (["IMAGES", "--stitch"], "is no volume"),
        (["IMAGES", "--optimize", "int4"], "--optimize int4: expected fp32, bf16, int8, auto, or nothing"),
        (["IMAGES", "--optimize", "int8"], "--optimize int8: add --calibrate DATA"),
        (["IMAGES", "--optimize", "--calibrate", "x"], "--calibrate is for --optimize int8"),
    ],
    ids=str,
)
def test_mistakes_are_one_line_and_status_2(predict, images, capsys, arguments, message):
    given = [images if argument == "IMAGES" else argument for argument in arguments]
    assert predict(*given) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_help_is_quick_and_imports_little(run_python):
    code = "import sys; from maskrcnn_ext.cli import main\ntry: main(['predict', '--help'])\nexcept SystemExit: pass\n"
    done = run_python("-c", code + "print(sorted({'torch', 'cv2', 'numpy'} & set(sys.modules)))")
    assert done.stdout.splitlines()[-1] == "[]"
    assert "--tile" in done.stdout


def test_scipy_is_not_imported_with_the_modules_of_a_prediction(run_python):
    code = "import sys, maskrcnn_ext.inference.jobs.video_job, maskrcnn_ext.inference.outputs.joined; print('scipy' in sys.modules)"
    assert run_python("-c", code).stdout.splitlines()[-1] == "False"


def test_tables_and_label_files_are_of_all_images(predict, images, tmp_path, capsys):
    assert predict(images, "--save", "table,labelstudio,cvat", "--threshold", "0.1") == 0
    out = tmp_path / "out"
    captured = capsys.readouterr()
    printed = captured.out
    commands = [shlex.split(line)[1:] for line in captured.err.partition("Next:")[2].splitlines()[1:]]
    assert [(command[0], command[2]) for command in commands] == [("predict", str(images)), ("select", str(images))]
    rows = (out / "objects.csv").read_text().splitlines()[1:]
    found = json.loads((out / "predictions.json").read_text())
    assert 0 < len(rows) <= sum(one["score"] >= 0.1 for one in found)
    assert f"table: {out / 'objects.csv'}" in printed
    assert len(json.loads((out / "label-studio/tasks.json").read_text())) == 6
    assert load_dataset(f"cvat:{out}/cvat/annotations.xml@{images}").classes
    before = (out / "objects.csv").read_bytes()
    assert predict(images, "--save", "table", "--threshold", "0.1") == 0  # of the journal
    assert (out / "objects.csv").read_bytes() == before


def test_a_slow_way_for_many_images_names_the_faster_one(predict, images, capsys, monkeypatch):
    assert predict(images, "--save", "json") == 0
    assert "--optimize" not in capsys.readouterr().err
    monkeypatch.setattr("maskrcnn_ext.cli.predict._MANY", 6)
    assert predict(images, "--save", "json", "--restart") == 0
    assert "--optimize finds the same objects in less time on a CPU" in capsys.readouterr().err
    assert predict(images, "--save", "json", "--restart", "--optimize") == 0
    assert "--optimize finds" not in capsys.readouterr().err


def test_a_volume_is_stitched(predict, images, tmp_path):
    planes = [np.asarray(Image.open(file).convert("L")) for file in sorted(images.iterdir())[:3]]
    tifffile.imwrite(tmp_path / "v.tif", np.stack(planes), photometric="minisblack")
    assert predict(tmp_path / "v.tif", "--stitch", "--save", "json", "--threshold", "0.05") == 0
    out = tmp_path / "out"
    assert [image["file_name"][-2:] for image in json.loads((out / "images.json").read_text())["images"]] == [
        "@0",
        "@1",
        "@2",
    ]
    labels = tifffile.imread(out / "volumes/v.tif")
    assert labels.shape == (3, *planes[0].shape)
    rows = (out / "volumes/v.csv").read_text().splitlines()[1:]
    assert labels.max() == len(rows) > 0


def test_a_run_that_was_evaluated_on_tiles_predicts_in_tiles(tmp_path, capsys):
    from maskrcnn_ext.cli.predict import _tile_of_training

    assert _tile_of_training(str(tmp_path)) is None
    config = "dataloader: {{test: {{dataset: {{names: '{name}'}}}}}}"
    (tmp_path / "config.yaml").write_text(config.format(name="coco:a.json@b"))
    assert _tile_of_training(str(tmp_path)) is None
    (tmp_path / "config.yaml").write_text(config.format(name="coco:a.json@b@tiles:512@list:/data/val.txt"))
    assert _tile_of_training(str(tmp_path)) == 512
    assert capsys.readouterr().out == "in tiles of 512 pixels, as in training; --tile sets another side\n"
