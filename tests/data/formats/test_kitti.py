"""KITTI object detection: boxes, DontCare regions, and errors that name the line."""

import cv2
import numpy as np
import pytest

from maskrcnn_ext import InputError
from maskrcnn_ext.data.formats.kitti import read_kitti
from maskrcnn_ext.data.registry.catalog import load_dataset

# From the devkit's example: a pedestrian, and a region of distant cars.
PEDESTRIAN = "Pedestrian 0.00 0 -0.20 712.40 143.00 810.73 307.92 1.89 0.48 1.20 1.84 1.47 8.41 0.01"
REGION = "DontCare -1 -1 -10 503.89 169.71 590.61 190.13 -1 -1 -1 -1000 -1000 -1000 -10"
CAR = "Car 0.88 3 -0.69 0.00 192.37 402.31 374.00 1.60 1.57 3.23 -2.70 1.74 3.68 -1.29"


@pytest.fixture
def folders(tmp_path):
    for part in ("label_2", "image_2"):
        (tmp_path / part).mkdir()
    for name, text in {"000000": PEDESTRIAN, "000001": f"{CAR}\n{REGION}\n\n", "000002": ""}.items():
        cv2.imwrite(str(tmp_path / f"image_2/{name}.png"), np.zeros((370, 1224, 3), np.uint8))
        (tmp_path / f"label_2/{name}.txt").write_text(text)
    return tmp_path / "label_2", tmp_path / "image_2"


def test_boxes_and_ignore_regions(folders, caplog):
    data = load_dataset("kitti:{}@{}".format(*folders))
    assert data.classes == ["Car", "Pedestrian"]
    assert [(record.image_id, len(record.annotations)) for record in data.images] == [
        ("000000", 1),
        ("000001", 3),
        ("000002", 0),
    ]
    (pedestrian,), (car, *region), _ = (record.annotations for record in data.images)
    assert (pedestrian.category, pedestrian.box, pedestrian.segmentation) == (1, (712.4, 143, 810.73, 307.92), None)
    assert (car.category, car.box, car.crowd) == (0, (0, 192.37, 402.31, 370), False)  # the image ends at 370
    assert [(each.category, each.crowd, each.box) for each in region] == [
        (index, True, (503.89, 169.71, 590.61, 190.13)) for index in (0, 1)
    ]
    assert "1 object extends beyond its image and is clipped" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Car 0 0 0 1 2 3", "000002.txt, line 2: 7 fields, expected 15"),
        (CAR.replace("402.31", "x"), "line 2: expected numbers"),
        (CAR.replace("402.31", "-1"), "line 2: box .* has no area"),
        (CAR.replace("Car", "Tram"), "line 2: class 'Tram', expected one of Car, Pedestrian"),
    ],
)
def test_a_broken_row_is_named_or_collected(folders, text, message):
    (folders[0] / "000002.txt").write_text(f"{CAR}\n{text}\n")
    with pytest.raises(InputError, match=message):
        read_kitti(*folders, classes=["Car", "Pedestrian"])
    faults = []
    data = read_kitti(*folders, classes=["Car", "Pedestrian"], faults=faults)
    assert (len(data.images[2].annotations), len(faults)) == (1, 1)


def test_a_broken_row_names_no_class(folders):
    (folders[0] / "000002.txt").write_text(f"{CAR}\nTram 0 0 0\nxyz\n")
    faults = []
    assert read_kitti(*folders, faults=faults).classes == ["Car", "Pedestrian"]
    assert [fault.partition("txt, ")[2].partition(":")[0] for fault in map(str, faults)] == ["line 2", "line 3"]


def test_an_image_without_labels_is_named(folders):
    (folders[0] / "000001.txt").unlink()
    with pytest.raises(InputError, match=r"000001\.png: has no labels"):
        read_kitti(*folders)
