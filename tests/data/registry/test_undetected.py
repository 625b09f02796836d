"""A file or folder that names no data set is described, with what to do."""

import pytest

from maskrcnn_ext import InputError, get_dataset_dicts


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "data: an empty folder"),
        (["a.png", "a_seg.npy"], r"data: save a_seg\.npy of Cellpose as masks"),
        (["a.jpg", "b.png"], "data: 2 images without annotations"),
        (
            ["a.jpg", "a_1.png", "b.jpg"],
            r"data: 3 images .*; if a_1\.png is a mask of a\.jpg, move the masks to a folder `masks`",
        ),
        (["cat/a.jpg", "dog/b.png"], "data: 2 images in folders, without annotations: boxes or outlines are needed"),
        (["export.zip"], "unpack export.zip first"),
        (
            ["train/a.tfrecord", "a_label_map.pbtxt"],
            "data: a.tfrecord holds TFRecords, which are not read: export the labels as COCO",
        ),
        (["images/train/a.jpg", "labels/train/a.txt"], "YOLO texts such as labels/train/a.txt, .* add data.yaml"),
        (["train/images/a.jpg", "train/labels/a.txt"], "YOLO texts such as train/labels/a.txt, .* add data.yaml"),
        (
            ["a.csv", "a.jpg"],
            r"data: its format .* such as coco:.*data/a\.json@.* or label_image:.*/masks@.*images \(the formats are bdd100k, .*yolo\)",
        ),
    ],
)
def test_a_folder_of_no_format_is_described(tmp_path, files, message):
    (tmp_path / "data").mkdir()
    for name in files:
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).touch()
    with pytest.raises(InputError, match=message) as error:
        get_dataset_dicts(str(tmp_path / "data"))
    assert "no such file" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '{"images": [', r"a\.json: not a JSON file \(Expecting"),
        ("task.json", '{"labels": []}', "task.json: a backup of CVAT: export the task as CVAT for images 1.1"),
        ("a.json", '[{"id": 1, "annotation_id": 1}]', "a short export of Label Studio .* export as JSON"),
        ("export.zip", "PK", "export.zip: unpack it first"),
        ("a.tfrecord", "", r"a\.tfrecord.* TFRecords,? .*not read: export the labels as COCO JSON"),
    ],
)
def test_a_file_of_no_format_is_described(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    for path in (tmp_path / name, tmp_path):
        with pytest.raises(
            InputError,
            match=message.replace("export.zip: unpack it", "unpack (export.zip|it)") if path == tmp_path else message,
        ):
            get_dataset_dicts(str(path))
