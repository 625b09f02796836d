"""Tables of masks as run lengths: the columns of Kaggle's competitions, both orders of pixels, and errors that name the line."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from maskrcnn_ext import InputError, load_dataset
from maskrcnn_ext.data.formats.csv_masks import decode_runs, read_csv_masks
from maskrcnn_ext.data.registry.detect import detect
from maskrcnn_ext.ops.rle import decode_rle

HEIGHT, WIDTH = 6, 9


def runs(mask, order="columns"):
    """Returns the run lengths of a mask by a loop over its pixels."""
    pixels = (mask.T if order == "columns" else mask).ravel().tolist()
    found, before = [], 0
    for number, value in enumerate(pixels, start=1):
        if value and not before:
            found.append([number, 0])
        if value:
            found[-1][1] += 1
        before = value
    return " ".join(f"{start} {length}" for start, length in found)


def box_mask(x0, y0, x1, y1):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[y0:y1, x0:x1] = 1
    return mask


CAT, DOG = box_mask(1, 2, 4, 5), box_mask(5, 0, 9, 3)


@pytest.fixture
def write(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / "train").mkdir(exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "train" / name)

    def write(*lines, name="train.csv"):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
        return tmp_path / name, tmp_path / "train"

    return write


def masks(record):
    return [(each.category, decode_rle(each.segmentation).tolist()) for each in record.annotations]


@given(arrays(np.uint8, st.tuples(st.integers(1, 7), st.integers(1, 7)), elements=st.integers(0, 1)), st.booleans())
def test_runs_are_the_mask(mask, by_rows):
    order = "rows" if by_rows else "columns"
    if mask.any():
        assert decode_runs(runs(mask, order), *mask.shape, order, "x").tolist() == mask.tolist()


@pytest.mark.parametrize(
    "lines",
    [
        ("ImageId,EncodedPixels,ClassId", f"a.png,{runs(CAT)},cat", f"a.png,{runs(DOG)},dog", "b.png,,"),
        ("ImageId,ClassId,EncodedPixels", f"a.png,cat,{runs(CAT)}", f"a.png,dog,{runs(DOG)}", "b.png,cat,-1"),
        ("id;width;height;label;rle", f"a;9;6;cat;{runs(CAT)}", f"a;9;6;dog;{runs(DOG)}", "b;9;6;cat;"),
        ("Image_Label,EncodedPixels", f"a.png_cat,{runs(CAT)}", f"a.png_dog,{runs(DOG)}", "b.png_cat,"),
        ("id,annotation,cell_type", f"a,{runs(CAT, 'rows')},cat", f"a,{runs(DOG, 'rows')},dog", "b,,cat"),
    ],
)
def test_usual_columns(write, tmp_path, lines):
    file, images = write(*lines)
    data = read_csv_masks(file, images)
    assert data.classes == ["cat", "dog"]
    assert [record.file_name for record in data.images] == [str(images / "a.png"), str(images / "b.png")]
    assert [masks(record) for record in data.images] == [[(0, CAT.tolist()), (1, DOG.tolist())], []]
    assert data.images[0].annotations[0].box == (1, 2, 4, 5)
    assert detect(tmp_path) == f"csv_masks:{file}@{images}@instances:component"
    assert [len(record.annotations) for record in load_dataset(str(tmp_path)).images] == [2, 0]


def test_rows_of_one_class_are_objects(write, tmp_path):
    """With several masks of a class in an image, each is one object, whatever its parts."""
    both = np.maximum(CAT, box_mask(0, 0, 1, 1))
    file, images = write("ImageId,EncodedPixels", f"a.png,{runs(both)}", f"a.png,{runs(DOG)}")
    assert detect(file) == f"csv_masks:{file}@{images}"
    (record,) = read_csv_masks(file, images).images
    assert masks(record) == [(0, both.tolist()), (0, DOG.tolist())]
    (record,) = read_csv_masks(file, images, instances="component").images
    assert [found for _, found in masks(record)] == [box_mask(0, 0, 1, 1).tolist(), CAT.tolist(), DOG.tolist()]


def test_the_order_of_pixels_is_guessed_and_said(write, caplog):
    files = write("ImageId,EncodedPixels", f"a,{runs(CAT, 'rows')}")
    assert masks(read_csv_masks(*files).images[0]) == [(0, CAT.tolist())]
    assert (
        "counts pixels along rows, as its masks have 1 part so, and 2 along columns; add @order:columns" in caplog.text
    )
    wrong = decode_runs(runs(CAT, "rows"), HEIGHT, WIDTH, "columns", "x")
    assert masks(read_csv_masks(*files, order="columns").images[0]) == [(0, wrong.tolist())]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.png,1", "line 2: expected a mask as pairs of a start and a length, found '1'"),
        ("a.png,1 x", "line 2: expected a mask as pairs"),
        ("a.png,1 -3", "line 2: expected a mask as pairs"),
        ("a.png,0 3", "line 2: the mask has pixels from 0 to 2 and a run of 3, but the image has pixels from 1 to 54"),
        ("a.png,50 6", r"line 2: the mask has pixels from 50 to 55 .* from 1 to 54 \(6 x 9\)"),
        (f"a.png,{'9' * 400} 1", "line 2: the mask has pixels from inf to inf"),
        ("a.png,5 0", "line 2: the mask has .* a run of 0"),
        ("c.png,1 3", "line 2: .*c.png"),
        (",1 3", "line 2: '' is not a file name"),
        ("a.png,1 3,4", "line 2: has 3 values, expected 2"),
    ],
)
def test_broken_rows_are_named_or_collected(write, row, message):
    file, images = write("ImageId,EncodedPixels", row, "b.png,1 2")
    with pytest.raises(InputError, match=message):
        read_csv_masks(file, images)
    faults = []
    if "values" not in message:
        assert len(read_csv_masks(file, images, faults=faults).images[-1].annotations) == 1
        assert len(faults) == 1


def test_options_and_columns_that_are_not_known(write):
    file, images = write("ImageId,EncodedPixels", "a.png,1 3")
    with pytest.raises(InputError, match="order is 'row', expected columns or rows"):
        read_csv_masks(file, images, order="row")
    with pytest.raises(InputError, match="instances is 'value', expected row or component"):
        read_csv_masks(file, images, instances="value")
    other, _ = write("ImageId,text", "a.png,1 3", name="other.csv")
    with pytest.raises(InputError, match="expected columns such as ImageId and EncodedPixels, found imageid, text"):
        read_csv_masks(other, images)
    assert detect(other) is None
    notes, _ = write("id,annotation", "a.png,a scratch", name="notes.csv")
    assert detect(notes) is None
    empty, _ = write(name="empty.csv")
    assert detect(empty) is None


def test_an_image_of_another_size_than_the_table_says(write):
    with pytest.raises(InputError, match=r"line 2: says 8 x 6 \(width, height\), but .*a.png is 9 x 6"):
        read_csv_masks(*write("ImageId,EncodedPixels,Height,Width", "a.png,1 3,6,8"))
