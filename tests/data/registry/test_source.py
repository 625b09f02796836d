"""Checks after every reader: files where folders are expected, and objects outside of their image."""

import json

import pytest
from detectron2.data import MetadataCatalog
from PIL import Image

from maskrcnn_ext import InputError
from maskrcnn_ext.data.registry.catalog import load_dataset
from maskrcnn_ext.data.registry.dicts import from_dicts, to_dicts
from maskrcnn_ext.data.registry.source import Source
from maskrcnn_ext.data.writers.coco import to_coco_dict


def test_a_file_where_a_folder_is_expected_is_named(tmp_path):
    (tmp_path / "a.txt").touch()
    for spec in (
        "geo:{0}@{0}",
        "dicom:{0}@{0}/a.txt",
        "nifti:{0}/a.txt@{0}/a.txt",
        "coco:{0}@{0}",
        "voc:{0}/a.txt@{0}",
    ):
        with pytest.raises(InputError) as caught:
            load_dataset(spec.format(tmp_path))
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no such file or folder"):
        Source("t", "coco", options={"json": "x" * 5000, "images": "."}).read()


def test_objects_outside_of_their_image_are_counted(tmp_path, caplog):
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    shapes = [
        {
            "label": "a",
            "points": [[x, 1], [x + 5, 1], [x + 5, 8]],
            "group_id": None,
            "shape_type": "polygon",
            "flags": {},
        }
        for x in (2, 25)
    ]
    (tmp_path / "a.json").write_text(json.dumps({"imagePath": "a.png", "imageData": None, "shapes": shapes}))
    assert len(load_dataset(f"labelme:{tmp_path}").images[0].annotations) == 2
    assert "1 object without area or outside of their image, such as one of image 'a'" in caplog.text


def voc_like(tmp_path):
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    categories = [{"id": 3, "name": "car"}, {"id": 5, "name": "DontCare"}, {"id": 8, "name": "cyclist"}]
    annotations = [
        {"id": number, "image_id": 1, "category_id": category, "bbox": [number, 1, 5, 4]}
        for number, category in enumerate((3, 5, 8), 1)
    ]
    images = [{"id": 1, "file_name": "a.png", "height": 10, "width": 20, "labelled_category_ids": [5, 8]}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "a.json").write_text(json.dumps(content))
    return f"coco:{tmp_path}/a.json@{tmp_path}"


def test_objects_of_an_ignored_class_are_crowds_of_every_other(tmp_path):
    data = load_dataset(f"{voc_like(tmp_path)}@ignored:DontCare")
    assert (data.classes, data.category_ids) == (["car", "cyclist"], [3, 8])
    (record,) = data.images
    assert [(each.category, each.crowd, each.box[0]) for each in record.annotations] == [
        (0, False, 1),
        (0, True, 2),
        (1, True, 2),
        (1, False, 3),
    ]
    assert record.labelled_classes == [1]
    with pytest.raises(InputError, match="`ignored` names the class 'Dontcare': did you mean DontCare"):
        load_dataset(f"{voc_like(tmp_path)}@ignored:Dontcare")
    with pytest.raises(InputError, match="`ignored` names all classes"):
        load_dataset(f"{voc_like(tmp_path)}@ignored:car,DontCare,cyclist")


def test_labelled_classes_reach_the_dicts_and_the_files(tmp_path):
    data = load_dataset(f"{voc_like(tmp_path)}@only:cyclist,car")
    assert data.images[0].labelled_classes == [0]
    assert to_dicts(data)[0]["labelled_classes"] == [0]
    assert to_coco_dict(data)["images"][0]["labelled_category_ids"] == [8]
    content = json.loads((tmp_path / "a.json").read_text())
    content["images"][0]["labelled_category_ids"] = "5"
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="image 1 has the `labelled_category_ids` '5', expected a list of ids"):
        load_dataset(f"coco:{tmp_path}/a.json@{tmp_path}")
    content["images"][0]["labelled_category_ids"] = [5, 6]
    (tmp_path / "b.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"image 1 has the `labelled_category_ids` \[5, 6\], expected a list of ids"):
        load_dataset(f"coco:{tmp_path}/b.json@{tmp_path}")


def test_points_reach_the_dicts_and_the_files(tmp_path):
    spec = voc_like(tmp_path)
    content = json.loads((tmp_path / "a.json").read_text())
    content["annotations"][0].update(point_coords=[[2, 3], [4, 1]], point_labels=[1, 0])
    (tmp_path / "a.json").write_text(json.dumps(content))
    data = load_dataset(spec)
    assert data.images[0].annotations[0].points == [2.5, 3.5, 1, 4.5, 1.5, 0], "pixel indices, as keypoints"
    (entry,) = (entry for entry in to_dicts(data)[0]["annotations"] if "point_coords" in entry)
    assert (entry["point_coords"], entry["point_labels"]) == ([[2.5, 3.5], [4.5, 1.5]], [1, 0])
    written = to_coco_dict(data)["annotations"][0]
    assert (written["point_coords"], written["point_labels"]) == ([[2, 3], [4, 1]], [1, 0])
    MetadataCatalog.get("points_of_another_program").set(thing_classes=data.classes)
    try:
        again = from_dicts("points_of_another_program", to_dicts(data))
    finally:
        MetadataCatalog.remove("points_of_another_program")
    assert again.images[0].annotations[0].points == data.images[0].annotations[0].points
    for broken, message in (
        ({"point_coords": [1, 2]}, "`point_coords` that are not a list"),
        ({"point_labels": [1]}, "`point_labels` that are not a 0 or 1 for each of its 2 points"),
        ({"point_labels": [1, 2]}, "`point_labels` that are not a 0 or 1"),
    ):
        content["annotations"][0].update(point_coords=[[2, 3], [4, 1]], point_labels=[1, 0])
        content["annotations"][0].update(broken)
        (tmp_path / "b.json").write_text(json.dumps(content))
        with pytest.raises(InputError, match=f"annotation 1 has {message}"):
            load_dataset(f"coco:{tmp_path}/b.json@{tmp_path}")


def test_classes_of_one_name_are_reported(tmp_path, caplog):
    content = {
        "images": [],
        "categories": [{"id": 1, "name": "bolt"}, {"id": 2, "name": "nut"}, {"id": 3, "name": "bolt"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    load_dataset(f"coco:{tmp_path}/a.json@{tmp_path}")
    assert "2 classes are called 'bolt' and are learned as different ones" in caplog.text


def test_a_broken_coco_file_names_the_command_that_repairs_it(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"images": [], "categories": [], "annotations": [{"id": 1}]}))
    with pytest.raises(
        InputError, match="has no `image_id`; maskrcnn-ext check-data lists all faults, and repairs some with --fix"
    ):
        load_dataset(f"coco:{tmp_path}/a.json@{tmp_path}")


def test_a_note_names_the_other_subsets_of_cvat(tmp_path):
    file = tmp_path / "a.xml"
    file.write_text('<annotations><image subset="Train"/><image subset="Val"/></annotations>')
    source = Source.create("mine", format="cvat", xml=str(file), subset="Train")
    assert source.split_note().endswith(f"it also has Val, such as cvat:{file}@subset:Val")
    assert Source.create("mine", format="cvat", xml=str(file)).split_note() == ""
