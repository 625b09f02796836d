"""What docs/domains.md shows works on small data in the same formats: reading, checks, configs, training, tracks, maps."""

import json

import numpy as np
import pytest
from PIL import Image

from maskrcnn_ext.cli import main
from tests.conftest import ROOT
from tests.helpers.small_run import small_run
from tests.helpers.videos import write_video
from tests.inference.conftest import run, spec  # noqa: F401  # fixtures

CONFIG = "faster_rcnn_r50_fpn_1x.py"
PLATE, FACE = "/m/01jfm_", "/m/0dzct"


def save_image(file, seed=0):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (64, 96, 3), dtype=np.uint8)).save(file)


def write_open_images(root):
    """Plates and faces as in Open Images, and the catalogue of the page."""
    columns = (
        "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
    )
    folder = root / "openimages"
    for split in ("train", "validation"):
        for name in ("a", "b"):
            save_image(folder / split / f"{name}.jpg")
        rows = [f"{name},xclick,{label},1,0.1,0.5,0.25,0.75,0,0,0,0,0" for name in "ab" for label in (PLATE, FACE)]
        (folder / f"{split}-annotations-bbox.csv").write_text("\n".join([columns, *rows]) + "\n")
    (folder / "class-descriptions-boxable.csv").write_text(
        f"{PLATE},Vehicle registration plate\n{FACE},Human face\n/m/0k4j,Car\n"
    )


def catalogue_of_the_page():
    page = (ROOT / "docs/domains.md").read_text()
    return page.partition("```yaml\n")[2].partition("```")[0]


def names_of(train, val):
    return [f"dataloader.train.dataset.names={train}", f"dataloader.test.dataset.names={val}"]


def test_number_plates_and_faces_of_open_images(tmp_path, monkeypatch, capsys):
    write_open_images(tmp_path)
    (tmp_path / "plates.yaml").write_text(catalogue_of_the_page())
    monkeypatch.setenv("MASKRCNN_EXT_CATALOG", str(tmp_path / "plates.yaml"))
    assert main(["check-data", "plates_train", "--fail-on", "error"]) == 0
    assert "2 images, 4 objects, 2 classes" in capsys.readouterr().out
    assert main(["check-config", CONFIG, *names_of("plates_train", "plates_val"), "train.init_checkpoint="]) == 0


def test_faces_of_wider_face(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    specs = []
    for split in ("train", "val"):
        save_image(tmp_path / f"WIDER_{split}/images/0--Parade/0_Parade_{split}.jpg")
        text = tmp_path / f"wider_face_split/wider_face_{split}_bbx_gt.txt"
        text.parent.mkdir(exist_ok=True)
        text.write_text(f"0--Parade/0_Parade_{split}.jpg\n1\n9 12 30 22 0 0 0 0 0 0 \n")
        specs.append(f"wider_face:{text.relative_to(tmp_path)}@WIDER_{split}/images")
    assert main(["check-data", specs[0], "--fail-on", "error"]) == 0
    assert "1 image, 1 object, 1 class" in capsys.readouterr().out
    assert main(["check-config", CONFIG, *names_of(*specs), "train.init_checkpoint="]) == 0


@pytest.mark.slow
def test_traffic_is_tracked_and_measured(run, tmp_path, capsys):
    video = write_video(tmp_path / "street.mp4", 3)
    out = tmp_path / "out"
    command = ["predict", str(run), str(video), "-o", str(out), "--track", "--save", "video,mots", "--threshold", "0.1"]
    assert main([*command, "--device", "cpu"]) == 0
    tracks = next((out / "mots").glob("*.txt"))
    assert main(["evaluate", str(out / "mots"), str(tracks), "-o", str(tmp_path / "metrics")]) == 0
    (row, *_) = json.loads((tmp_path / "metrics/tracks.json").read_text())["classes"]
    assert row["HOTA"] == 100, "against themselves"


@pytest.mark.slow
def test_a_drone_map_becomes_a_geopackage(run, tmp_path, capsys):
    rasterio, pyogrio = pytest.importorskip("rasterio"), pytest.importorskip("pyogrio")
    from tests.helpers.geo_files import UTM, box_feature, write_vector

    pixels = np.random.default_rng(0).integers(0, 255, (3, 200, 300), dtype=np.uint8)
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 3, "width": 300, "height": 200}
    with rasterio.open(tmp_path / "ortho.tif", "w", **profile, transform=UTM, crs="EPSG:32616") as target:
        target.write(pixels)
    boxes = [(x, y, x + 30, y + 25) for x in (20, 120, 220) for y in (30, 110)]
    drawn = write_vector(tmp_path / "drawn.geojson", [box_feature(*box) for box in boxes])
    data = f"geo:{drawn}@{tmp_path / 'ortho.tif'}@tile:128"
    assert main(["check-data", data, "--fail-on", "error"]) == 0
    assert (
        main(
            [
                "train-net",
                "--config-file",
                "domains/shapes.py",
                "--num-gpus",
                "0",
                *small_run(data, tmp_path / "crowns"),
            ]
        )
        == 0
    )
    out = tmp_path / "out"
    command = ["predict", str(run), str(tmp_path / "ortho.tif"), "-o", str(out), "--tile", "128", "--overlap", "0.2"]
    assert main([*command, "--save", "geopackage", "--threshold", "0.05", "--device", "cpu"]) == 0
    written = pyogrio.read_info(out / "geopackage/ortho.gpkg")
    assert "32616" in written["crs"]
    left, bottom, right, top = written["total_bounds"]
    assert UTM.c <= left <= right <= UTM.c + 150
    assert UTM.f - 100 <= bottom <= top <= UTM.f
