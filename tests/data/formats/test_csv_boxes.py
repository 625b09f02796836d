"""Tables of boxes: the columns of TensorFlow, Roboflow and keras-retinanet, images without objects, and errors that name the line."""

import pytest
from PIL import Image

from maskrcnn_ext import InputError, get_dataset_dicts
from maskrcnn_ext.data.formats.csv_boxes import read_csv_boxes
from maskrcnn_ext.data.registry.detect import detect
from maskrcnn_ext.data.registry.splits import detect_splits

HEADER = "filename,width,height,class,xmin,ymin,xmax,ymax"
BOX = (5, 6, 15, 18)


@pytest.fixture
def write(tmp_path):
    (tmp_path / "images").mkdir()
    for name in ("a.jpg", "b.JPG"):
        Image.new("RGB", (50, 40)).save(tmp_path / "images" / name)

    def write(*lines, name="boxes.csv"):
        (tmp_path / name).write_text("".join(f"{line}\r\n" for line in lines))
        return tmp_path / name, tmp_path / "images"

    return write


@pytest.mark.parametrize(
    "lines",
    [
        (HEADER, "a.jpg,50,40,cat,5,6,15,18"),
        ("image,x1,y1,x2,y2,label", "a.jpg,5,6,15,18,cat"),
        ("image_id;label_name;X Min;Y Min;X Max;Y Max", "a;cat;5;6;15;18"),
        ("Filename\tx\ty\twidth\theight\tCategory", "D:\\old\\images\\A.jpg\t5\t6\t10\t12\tcat"),
        ("image_id,width,height,bbox,class", 'a,50,40,"[5.0, 6.0, 10.0, 12.0]",cat'),
        ("images/a.jpg,5,6,15,18,cat", ""),
    ],
)
def test_usual_columns(write, tmp_path, lines):
    file, images = write(*lines)
    data = read_csv_boxes(file, images)
    assert data.classes == ["cat"]
    (record,) = data.images
    assert (record.file_name, record.height, record.width) == (str(images / "a.jpg"), 40, 50)
    assert [(one.category, one.box, one.segmentation) for one in record.annotations] == [(0, BOX, None)]
    assert detect(tmp_path).startswith(f"csv_boxes:{file}@{tmp_path}")
    assert get_dataset_dicts(str(tmp_path))[0]["file_name"] == str(images / "a.jpg")


def test_a_list_of_four_numbers_is_a_box(write):
    header = "image_id,bbox"
    data = read_csv_boxes(*write(header, 'a,"[5, 6, 10, 12]"', "b,[]", "a,5 6 10 12"))
    assert [[each.box for each in one.annotations] for one in data.images] == [[BOX, BOX], []]
    with pytest.raises(InputError, match=r"boxes.csv, line 2: bbox has 3 values, expected x, y, width and height"):
        read_csv_boxes(*write(header, 'a,"[5, 6, 10]"'))


def test_images_have_several_objects_or_none(write, caplog):
    files = write(HEADER, "a.jpg,50,40,dog,5,6,15,18", "b.jpg,,,,,,,", "a.jpg,50,40,cat,60,6,30,18")
    data = read_csv_boxes(*files)
    assert data.classes == ["cat", "dog"]
    assert [(one.image_id, [each.box for each in one.annotations]) for one in data.images] == [
        ("a.jpg", [BOX, (30, 6, 50, 18)]),
        ("b.jpg", []),
    ]
    assert "1 box has swapped corners, which are put in order, such as" in caplog.text
    assert "1 object extends beyond its image" in caplog.text
    (record,) = read_csv_boxes(*write("path,x1,y1,x2,y2", "a.jpg,5,6,15,18")).images
    assert record.annotations[0].category == 0


def test_tables_are_splits(write, tmp_path):
    for split in ("train", "test"):
        write(HEADER, "a.jpg,50,40,cat,5,6,15,18", name=f"{split}_labels.csv")
    assert detect_splits(tmp_path) == (f"csv_boxes:{tmp_path}/train_labels.csv@{tmp_path}/images", None)


@pytest.mark.parametrize(
    "line", ["filename,class", "image,label,x,y", "ImageID,Source,LabelName,XMin,XMax,YMin,YMax", ""]
)
def test_other_tables_are_left_alone(write, tmp_path, line):
    file, images = write(line)
    assert detect(tmp_path) is None
    with pytest.raises(InputError, match="expected columns such as filename, class, xmin, ymin, xmax, ymax, found"):
        read_csv_boxes(file, images)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.jpg,50,40,cat,5,6,15", "line 2: has 7 values, expected 8"),
        ("a.jpg,40,50,cat,5,6,15,18", r"line 2: says 40 x 50 \(width, height\), but .*a\.jpg is 50 x 40"),
        ("a.jpg,50,40,cat,5,6,x,18", "line 2: expected numbers"),
        ("a.jpg,50,40,cat,5,6,5,18", "line 2: box .* has no area"),
        ("a.jpg,50,40,,5,6,15,18", "line 2: class '', expected one of"),
        ("c.jpg,50,40,cat,5,6,15,18", r"line 2: cannot read image .*images/c\.jpg"),
        (",50,40,cat,5,6,15,18", "line 2: '' is not a file name"),
    ],
)
def test_broken_rows_are_named_or_collected(write, row, message):
    files = write(HEADER, row, "b.jpg,50,40,cat,5,6,15,18")
    with pytest.raises(InputError, match=message):
        read_csv_boxes(*files)
    if "values" in message:
        return
    faults = []
    data = read_csv_boxes(*files, faults=faults)
    assert len(faults) == 1
    assert [each.box for each in data.images[-1].annotations] == [BOX]
