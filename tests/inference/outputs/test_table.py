"""Tables of objects: measurements in pixels and in units of length, intensities by numpy, and one table of all images."""

import csv
import io

import numpy as np
import pytest

from maskrcnn_ext import InputError
from maskrcnn_ext.inference.outputs import find_output
from maskrcnn_ext.inference.outputs.kinds import choose_kinds
from maskrcnn_ext.inference.outputs.predicted_image import PredictedImage
from maskrcnn_ext.inference.outputs.table import join_tables
from maskrcnn_ext.inference.sources import InputImage
from tests.helpers.predicted_images import CLASSES, HEIGHT, WIDTH, instances, only, predicted

MASKS = np.zeros((3, HEIGHT, WIDTH), np.uint8)
MASKS[0, 5:15, 10:30] = MASKS[1, 20:30, 40:50] = 1  # the third is empty


def rows(shown):
    text = only(find_output("table")(shown), "a/b.csv").decode()
    return list(csv.DictReader(io.StringIO(text)))


def test_objects_are_measured_in_pixels_with_their_intensities():
    image = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    first, second = rows(predicted(instances(MASKS), image))
    assert (first["image"], first["id"], first["class"], second["id"]) == ("a/b.png", "1", "cat/dog", "2")
    numbers = {
        key: float(first[key]) for key in ("x0", "y0", "x1", "y1", "centroid_x", "centroid_y", "area", "area_px")
    }
    assert list(numbers.values()) == [10, 5, 30, 15, 20, 10, 200, 200]
    assert (first["unit"], first["map_x"], float(first["feret_min"]), float(first["orientation"])) == ("px", "", 10, 0)
    inside = image[5:15, 10:30].reshape(-1, 3)
    for channel, name in enumerate(("blue", "green", "red")):
        assert float(first[f"mean_{name}"]) == pytest.approx(inside[:, channel].mean())
        assert float(first[f"std_{name}"]) == pytest.approx(inside[:, channel].std())


def test_values_of_any_type_and_number_of_channels_are_those_that_were_stored():
    values = np.random.default_rng(0).integers(0, 60000, (HEIGHT, WIDTH, 5)).astype(np.uint16)
    item = InputImage("key", "a/b", 1, values, "a/b.npy")
    shown = PredictedImage(item, instances(MASKS), CLASSES, lambda: None, lambda: values, "raw")
    first, _ = rows(shown)
    assert float(first["mean_4"]) == pytest.approx(values[5:15, 10:30, 4].mean())
    assert "mean_blue" not in first


def test_georeferenced_rasters_are_measured_on_the_map(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    grid = rasterio.Affine(0.5, 0, 1000, 0, -0.5, 8000)
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    profile = {"driver": "GTiff", "height": HEIGHT, "width": WIDTH, "count": 1, "dtype": "uint8"}
    with rasterio.open(tmp_path / "a.tif", "w", **profile, crs="EPSG:32633", transform=grid) as raster:
        raster.write(image[:, :, 0], 1)
    first, _ = rows(predicted(instances(MASKS), image, tmp_path / "a.tif"))
    assert first["unit"] == "m"
    assert (float(first["area"]), float(first["area_px"])) == (50, 200)
    assert float(first["feret_min"]) == pytest.approx(5)
    assert (float(first["map_x"]), float(first["map_y"])) == (1000 + 20 * 0.5, 8000 - 10 * 0.5)


def test_tracks_have_a_column(tmp_path):
    import torch

    found = instances(MASKS)
    found.track_ids = torch.tensor([7, 3, 1])
    assert [row["track_id"] for row in rows(predicted(found, np.zeros((HEIGHT, WIDTH, 3), np.uint8)))] == ["7", "3"]


def write(folder, name, text):
    file = folder / "table" / f"{name}.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_tables_of_images_are_joined_in_order(tmp_path):
    write(tmp_path, "b", "image,score,mean_blue\r\nb.png,0.5,1\r\n")
    write(tmp_path, "a", "image,score,mean_0\r\n'=a.png,0.25,2\r\na.png,1,3\r\n")
    write(tmp_path, "old", "image,score\r\nold.png,0.5\r\n")
    with join_tables(tmp_path, ["b", "gone", "a"]).open(newline="") as stream:
        joined = list(csv.DictReader(stream))
    assert [(row["image"], row["score"], row["mean_blue"], row["mean_0"]) for row in joined] == [
        ("b.png", "0.5", "1", ""),
        ("'=a.png", "0.25", "", "2"),
        ("a.png", "1", "", "3"),
    ]
    assert list(joined[0])[:3] == ["image", "id", "class"]
    empty = join_tables(tmp_path / "none", [])
    assert empty.read_text().startswith("image,id,class,score")


def test_parquet_keeps_numbers_or_names_its_extra(tmp_path):
    write(tmp_path, "a", "image,id,score\r\n1,1,0.25\r\n002,2,1\r\n")
    try:
        import pyarrow.parquet
    except ImportError:
        with pytest.raises(InputError, match=r'--save parquet needs pyarrow: pip install "maskrcnn_ext\[parquet\]"'):
            join_tables(tmp_path, ["a"], parquet=True)
        with pytest.raises(InputError, match="--save parquet needs pyarrow"):
            choose_kinds("parquet", has_images=True, has_videos=False, tracks=False)
        assert not (tmp_path / "objects.parquet").exists()
    else:
        found = pyarrow.parquet.read_table(join_tables(tmp_path, ["a"], parquet=True))
        columns = found.to_pydict()
        assert (columns["image"], columns["id"], columns["score"]) == (["1", "002"], [1, 2], [0.25, 1.0])
        assert columns["x0"] == [None, None]
        # Tables of several jobs can be read as one.
        nothing = pyarrow.parquet.read_table(join_tables(tmp_path / "none", [], parquet=True))
        assert nothing.schema == found.schema


def test_an_image_of_another_size_than_predicted_is_named():
    with pytest.raises(InputError, match="had"):
        rows(predicted(instances(MASKS), np.zeros((3, 3, 3), np.uint8)))
