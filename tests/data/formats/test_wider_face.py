"""WIDER FACE: boxes of all images in one text, invalid faces, images without faces, and errors that name the line."""

import pytest
from PIL import Image

from maskrcnn_ext import InputError, get_dataset_dicts
from maskrcnn_ext.data.formats.wider_face import read_wider_face

FACE, INVALID, FLAT = "5 6 10 12 0 0 0 0 0 0 ", "30 2 4 4 2 0 0 1 2 0", "8 8 0 3 1 0 0 0 0 0"
PARADE, DANCE = "0--Parade/0_Parade_1.jpg", "3--Dance/3_Dance_9.jpg"


@pytest.fixture
def write(tmp_path):
    for name in (PARADE, DANCE):
        (tmp_path / "images" / name).parent.mkdir(parents=True)
        Image.new("RGB", (50, 40)).save(tmp_path / "images" / name)

    def write(*lines):
        (tmp_path / "faces.txt").write_text("".join(f"{line}\n" for line in lines))
        return tmp_path / "faces.txt", tmp_path / "images"

    return write


def test_boxes_and_invalid_faces(write, caplog):
    files = write(PARADE, "4", FACE, INVALID, FLAT, "45 30 10 5 0 0 0 0 0 0", DANCE, "0", "0 0 0 0 0 0 0 0 0 0 ")
    data = read_wider_face(*files)
    assert data.classes == ["face"]
    assert [(one.image_id, one.height, one.width) for one in data.images] == [
        (PARADE[:-4], 40, 50),
        (DANCE[:-4], 40, 50),
    ]
    found = [(one.box, one.crowd, one.segmentation) for one in data.images[0].annotations]
    assert found == [((5, 6, 15, 18), False, None), ((30, 2, 34, 6), True, None), ((45, 30, 50, 35), False, None)]
    assert data.images[1].annotations == []
    assert "left out 1 face without area, such as" in caplog.text
    assert "line 5" in caplog.text


def test_a_string_names_it(write):
    file, images = write(PARADE, "1", FACE, DANCE, "0", "0 0 0 0 0 0 0 0 0 0")
    (record,) = get_dataset_dicts(f"wider_face:{file}@{images}")
    assert [one["bbox"] for one in record["annotations"]] == [[5, 6, 15, 18]]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["1", FACE], "line 1: expected the path of an image"),
        ([PARADE, "2", FACE], f"image {PARADE}: 1 row after the number of faces '2'"),
        ([PARADE, FACE], f"image {PARADE}: 0 rows after the number of faces ''"),
        ([PARADE], f"image {PARADE}: 0 rows after the number of faces ''"),
        ([PARADE, "1", "5 6 10 12"], "line 3: 4 fields, expected 10"),
        ([PARADE, "1", FACE.replace("12", "x")], "line 3: expected numbers"),
        ([PARADE, "1", FACE.replace("5", "60")], "line 3: box .* has no area"),
        (["0--Parade/gone.jpg", "1", FACE], r"gone\.jpg"),
    ],
)
def test_broken_texts_are_named_or_collected(write, lines, message):
    files = write(*lines, *([DANCE, "1", FACE] if lines[0] != "1" else []))
    with pytest.raises(InputError, match=message):
        read_wider_face(*files)
    if lines[0] == "1":
        return
    faults = []
    data = read_wider_face(*files, faults=faults)
    assert len(faults) == 1
    assert [len(one.annotations) for one in data.images][-1] == 1


def test_one_class(write):
    files = write(DANCE, "1", FACE)
    assert read_wider_face(*files, classes=["head"]).classes == ["head"]
    with pytest.raises(InputError, match="has one class, and `classes` are a, b"):
        read_wider_face(*files, classes=["a", "b"])
