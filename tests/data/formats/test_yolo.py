"""YOLO data sets: how the YAML names images, rows of both kinds, and errors for broken files."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from maskrcnn_ext import InputError, get_dataset_dicts
from maskrcnn_ext.data.formats.yolo import list_splits, read_yolo

ROW = "0 0.5 0.5 0.2 0.5\n"


@pytest.fixture
def yolo(tmp_path):
    def write(labels, *, yaml="train: images/train\nnames: [cat, dog]\n", folder="images/train", suffix="jpg"):
        for name, text in labels.items():
            image = tmp_path / folder / f"{name}.{suffix}"
            image.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (50, 40)).save(image)
            if text is not None:
                file = tmp_path / folder.replace("images", "labels") / f"{name}.txt"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)
        (tmp_path / "data.yaml").write_text(yaml)
        return tmp_path / "data.yaml"

    return write


def test_outlines_and_boxes_may_be_mixed(yolo):
    data = read_yolo(yolo({"a": "1 0.1 0.25 0.5 0.25 0.5 1\n\n0 0.5 0.5 0.2 0.5\r\n"}))
    assert data.classes == ["cat", "dog"]
    (record,) = data.images
    assert (record.image_id, record.height, record.width) == ("images/train/a.jpg", 40, 50)
    outline, box = record.annotations
    np.testing.assert_allclose(outline.segmentation, [[5, 10, 25, 10, 25, 40]])
    np.testing.assert_allclose(outline.box, [5, 10, 25, 40])
    np.testing.assert_allclose(box.box, [20, 10, 30, 30])
    assert (outline.category, box.category, box.segmentation) == (1, 0, None)


@settings(max_examples=30, deadline=None)
@given(points=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=3, max_size=9))
def test_an_outline_is_scaled_point_by_point(points, tmp_path_factory):
    folder = tmp_path_factory.mktemp("yolo")
    Image.new("L", (64, 48)).save(folder / "a.png")
    (folder / "a.txt").write_text("0 " + " ".join(f"{value!r}" for point in points for value in point))
    (folder / "d.yaml").write_text("train: .\nnames: {0: a}")
    (annotation,) = read_yolo(folder / "d.yaml").images[0].annotations
    np.testing.assert_allclose(annotation.segmentation, [[v for x, y in points for v in (x * 64, y * 48)]])


@pytest.mark.parametrize(("names", "folder"), [("classes.txt", "images"), ("obj.names", "obj_train_data")])
def test_a_text_of_class_names_replaces_the_yaml(yolo, names, folder):
    """As Label Studio and LabelImg, and CVAT write them."""
    file = yolo({"a": "1 0.5 0.5 0.2 0.5\n", "b": None}, folder=folder).with_name(names)
    file.write_text("cat\n dog\n\n")
    data = read_yolo(file)
    assert data.classes == ["cat", "dog"]
    assert [[each.category for each in record.annotations] for record in data.images] == [[1], []]
    assert list_splits(file) == ["train"]


def test_rounding_at_the_edge_is_clipped_and_counted(yolo, caplog):
    rows = [
        "0 0 0 0.5 -0.0011 0.5 1 0.003 1",
        "1 0.7 0.7 1.0021 0.7 1.0021 0.9 0.7 0.9",
        "0 0.304 0.5003 0.608 1.0004",
        ROW,
    ]
    (record,) = read_yolo(yolo({"a": "\n".join(rows)})).images
    first, second, box, _ = record.annotations
    np.testing.assert_allclose(first.segmentation, [[0, 0, 25, 0, 25, 40, 0.15, 40]])
    np.testing.assert_allclose(second.segmentation, [[35, 28, 50, 28, 50, 36, 35, 36]])
    np.testing.assert_allclose(box.box, [0, 0.004, 30.4, 40])
    assert "3 objects extend beyond their image and are clipped at its edges" in caplog.text


def test_a_missing_split_lists_those_of_the_file(yolo):
    yaml = yolo({"a": ROW}, yaml="train: images/train\ntest: [images/train]\nval:\nnc: 1\npath: .\nnames: [cat]\n")
    with pytest.raises(InputError, match="no split `val`, it has train, test"):
        read_yolo(yaml, split="val")
    assert list_splits(yaml) == ["train", "test"]


def test_a_split_that_is_the_training_split_gives_a_warning(yolo, caplog):
    read_yolo(yolo({"a": ROW}, yaml="train: images/train\nval: images/train\nnames: [cat]\n"), split="val")
    assert "split val is the same as train" in caplog.text


def test_images_without_rows_are_kept(yolo):
    records = read_yolo(yolo({"a": "", "b": None, "c": "\n"})).images
    assert [record.annotations for record in records] == [[], [], []]


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "png", "bmp", "tif", "webp", "JPG"])
def test_images_of_every_kind_are_found(yolo, suffix):
    (record,) = read_yolo(yolo({"sub/a": "0 0.5 0.5 1 1"}, suffix=suffix)).images
    assert record.image_id == f"images/train/sub/a.{suffix}"
    assert record.annotations[0].box == (0, 0, 50, 40)


@pytest.mark.parametrize(
    ("yaml", "split"),
    [
        ("path: .\ntrain: images/train\nnames: {0: cat, 1: dog}", "train"),
        ("val: [images/train]\nnames: [cat, dog]\nnc: 2", "val"),
        ("train: ../images/train\nnames: [cat, dog]", "train"),  # as Roboflow exports it
        ("train: list.txt\nnames: [cat, dog]", "train"),
        ("path: images\ntrain: train\nnames: [cat, dog]", "train"),
    ],
)
def test_a_split_is_a_folder_a_list_or_a_text(yolo, tmp_path, yaml, split):
    file = yolo({"a": "0 0.5 0.5 1 1", "b": ""}, yaml=yaml)
    (tmp_path / "list.txt").write_text("./images/train/a.jpg\nimages/train/b.jpg\n\n")
    records = read_yolo(file, split=split).images
    assert [len(record.annotations) for record in records] == [1, 0]
    assert [record.file_name for record in records] == [str(tmp_path / f"images/train/{name}.jpg") for name in "ab"]


def test_an_absolute_path_and_another_root(yolo, tmp_path):
    file = yolo({"a": ""}, yaml=f"path: {tmp_path}/images\ntrain: train\nnames: [cat]")
    assert len(read_yolo(file).images) == 1
    file = yolo({"a": ""}, yaml="path: /gone/images\ntrain: train\nnames: [cat]")
    with pytest.raises(
        InputError,
        match=r"data\.yaml: no .*train below .*; correct the paths of data\.yaml, or name their folder by @root:",
    ):
        read_yolo(file)
    assert len(read_yolo(file, root=tmp_path / "images").images) == 1


def test_only_the_last_folder_called_images_is_replaced(tmp_path):
    for folder in ("images/set/images", "images/set/labels"):
        (tmp_path / folder).mkdir(parents=True)
    Image.new("L", (50, 40)).save(tmp_path / "images/set/images/a.png")
    (tmp_path / "images/set/labels/a.txt").write_text("0 0.5 0.5 1 1")
    (tmp_path / "d.yaml").write_text("train: images/set/images\nnames: [a]")
    assert len(read_yolo(tmp_path / "d.yaml").images[0].annotations) == 1


def test_a_string_names_it(yolo):
    (record,) = get_dataset_dicts(f"yolo:{yolo({'a': '1 0 0 1 0 1 1'})}")
    assert record["annotations"][0]["segmentation"] == [[0, 0, 50, 0, 50, 40]]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("2 0.5 0.5 1 1", "class 2, expected 0 to 1"),
        ("-1 0.5 0.5 1 1", "class -1, expected"),
        ("0.5 0.5 0.5 1 1", "class 0.5, expected"),
        ("0", "0 numbers after the class"),
        ("0 0.5 0.5 1", "3 numbers after the class"),
        ("0 0.5 0.5 1 1 0.5", "5 numbers after the class"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "7 numbers after the class"),
        ("0 0.1 0.1 0.2 1.02 0.3 0.3", "1.02 is outside of the image"),
        ("0 -0.1 0.1 0.2 0.2 0.3 0.3", "-0.1 is outside of the image"),
        ("0 12 15 30 40", "12 is outside of the image"),
        ("0 nan 0.1 0.2 0.2", "expected finite numbers"),
        ("cat 0.5 0.5 1 1", "expected numbers"),
        ("0 0.5 0.5 0 0.2", "has no area"),
    ],
)
def test_a_broken_row_is_named(yolo, row, message):
    with pytest.raises(InputError, match=message) as caught:
        read_yolo(yolo({"a": f"0 0.5 0.5 1 1\n\n{row}\n"}))
    assert "labels/train/a.txt, line 3: " in str(caught.value)


def test_rounding_may_lead_a_little_beyond_the_edge(yolo):
    outline, box = read_yolo(yolo({"a": "0 0 0 1.0009 0 1 1\n0 0.5 0.5 1.0005 1"})).images[0].annotations
    assert box.box == (0, 0, 50, 40)
    assert outline.box == (0, 0, 50, 40)


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("train: images/train", "not a YOLO data file"),
        ("train: [\nnames: {", "not a YAML file"),
        ("names: [a]", "no split `train`"),
        ("train: images/train\nnames: {1: a, 2: b}", "the keys of `names` are 1, 2, expected 0, 1, 2"),
        ("train: images/train\nnc: 3\nnames: [a]", "`nc` is 3, but there are 1 names"),
        (
            "train: images/train\nkpt_shape: 17\nnames: [a]",
            "`kpt_shape` is 17, expected the number of keypoints, and 2 or 3",
        ),
        (
            "train: images/train\nkpt_shape: [2, 3]\nflip_idx: [0, 2]\nnames: [a]",
            "`flip_idx` is .* each of the numbers 0 to 1",
        ),
        ("train: images/train\nkpt_shape: [2, 3]\nkpt_names: [x]\nnames: [a]", "`kpt_names` is .* 2 different names"),
        ("train: nowhere\nnames: [a]", "no nowhere below"),
        ("train: labels\nnames: [a]", "split `train` has no images"),
        ("train: [images/train, images]\nnames: [a]", "split `train` names an image twice"),
    ],
)
def test_a_broken_data_file_is_named(yolo, yaml, message):
    with pytest.raises(InputError, match=message) as caught:
        read_yolo(yolo({"a": "0 0.5 0.5 1 1"}, yaml=yaml))
    assert str(caught.value).count("\n") == 0


def test_other_classes_and_unreadable_images_are_named(yolo, tmp_path):
    file = yolo({"a": "0 0.5 0.5 1 1"})
    with pytest.raises(InputError, match=r"`classes` are dog, cat, but .*data.yaml has cat, dog"):
        read_yolo(file, classes=["dog", "cat"])
    (tmp_path / "images/train/a.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"cannot read image .*a\.jpg"):
        read_yolo(file)


@pytest.mark.parametrize("path", ["/content/datasets/pets", "../datasets/pets"])
def test_the_path_of_another_machine_does_not_matter(yolo, path):
    (record,) = read_yolo(
        yolo({"a": ROW}, yaml=f"path: {path}\ntrain: images/train\nnames: {{'0': cat, '1': dog}}\n")
    ).images
    assert (record.image_id, len(record.annotations)) == ("images/train/a.jpg", 1)


def test_slashes_of_windows_are_slashes(yolo, tmp_path):
    yaml = yolo({"a": ROW}, yaml="train: images\\train\nval: val.txt\nnames: [cat, dog]\n")
    (tmp_path / "val.txt").write_text("images\\train\\a.jpg\r\n")
    for split in ("train", "val"):
        assert len(read_yolo(yaml, split=split).images[0].annotations) == 1


def test_images_without_labels_are_counted_and_never_all_of_them(yolo, caplog):
    read_yolo(yolo({"a": "", "b": ROW}))
    assert not caplog.text
    read_yolo(yolo({"a": "", "b": ROW, "c": None}))
    assert "1 of 3 images has no labels and so no objects, such as " in caplog.text


def test_labels_in_the_wrong_place_are_not_empty_images(yolo):
    with pytest.raises(InputError, match=r"no image of split `train` has labels, such as .*labels/train/a\.txt"):
        read_yolo(yolo({"a": None, "b": None}))


@pytest.mark.parametrize("entry", ["D:\\my\\images\\train", "/content/set/images/train", "../images/train"])
def test_splits_of_another_machine_are_found_by_their_last_parts(yolo, entry):
    assert len(read_yolo(yolo({"a": ROW}, yaml=f"train: '{entry}'\nnames: [cat]\n")).images) == 1


def test_a_missing_split_is_not_taken_for_another_folder(yolo):
    file = yolo({"a": ROW}, folder="images", yaml="{train: images, val: ../valid/images, names: [cat]}")
    with pytest.raises(InputError, match=r"no \.\./valid/images below"):
        read_yolo(file, split="val")


def test_splits_without_files_are_not_listed(yolo):
    file = yolo({"a": ROW}, yaml="{train: images/train, val: valid/images, test: [images/train, gone], names: [cat]}")
    assert list_splits(file) == ["train"]
    file.write_text("{train: gone, val: gone, names: [cat]}")
    assert list_splits(file) == ["train", "val"], "the reader names what is missing"
