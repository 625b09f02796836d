"""Datasets to check come from COCO files, other formats and other programs' registrations."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image

from maskrcnn_ext import InputError
from maskrcnn_ext.cli import main
from maskrcnn_ext.data.check.source import find, of_records
from maskrcnn_ext.data.formats.coco import read_coco
from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord, annotation_of_mask
from tests.helpers.planted import check, serious, unknown_category


def test_other_formats_are_checked_through_their_records(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8))
    square = {"name": "polygon", "all_points_x": [5, 25, 25, 5], "all_points_y": [5, 5, 25, 25]}
    bow = {"name": "polygon", "all_points_x": [30, 50, 50, 30], "all_points_y": [5, 25, 5, 25]}
    regions = [{"shape_attributes": shape, "region_attributes": {}} for shape in (square, square, bow)]
    entries = {"a.png1": {"filename": "a.png", "size": 1, "regions": regions}}
    (tmp_path / "via.json").write_text(json.dumps(entries))
    found = find(f"via:{tmp_path / 'via.json'}@{tmp_path}")
    faults = check(found.data, found.folder)
    assert serious(faults) == {("instance-duplicate", "a.png", 2), ("polygon-crossing", "a.png", 3)}
    with pytest.raises(InputError, match="--images is for COCO files"):
        find(f"via:{tmp_path / 'via.json'}@{tmp_path}", tmp_path)


def test_a_registered_coco_set_is_read_leniently(rles, tmp_path):
    from detectron2.data import DatasetCatalog, MetadataCatalog

    from maskrcnn_ext.data import register

    data, folder = rles
    unknown_category(data, folder)
    (tmp_path / "a.json").write_text(json.dumps(data))
    register("check_test", format="coco", json=tmp_path / "a.json", images=folder)
    try:
        found = find("check_test")
        assert ("category-unknown", data["annotations"][4]["image_id"], 5) in serious(check(found.data, found.folder))
    finally:
        DatasetCatalog.remove("check_test")
        MetadataCatalog.remove("check_test")


@pytest.mark.parametrize(
    ("file", "images"),
    [
        ("a.json", "."),
        ("a.json", "images"),
        ("annotations/a.json", "."),
        ("annotations/a.json", "images"),
        ("annotations/instances_val2017.json", "val2017"),
    ],
)
def test_the_images_are_found_in_the_usual_folders(rles, tmp_path, file, images):
    data, folder = rles
    root = tmp_path / "root"
    (root / file).parent.mkdir(parents=True)
    (root / images).mkdir(exist_ok=True)
    (root / "images").mkdir(exist_ok=True)  # also where the images are elsewhere
    for entry in data["images"][1:]:  # the first one is missing
        (root / images / entry["file_name"]).write_bytes((folder / entry["file_name"]).read_bytes())
    (root / file).write_text(json.dumps(data))
    assert find(str(root / file)).folder.resolve() == (root / images).resolve()


def test_only_the_selection_of_a_file_is_checked(rles, tmp_path):
    from detectron2.data import DatasetCatalog, MetadataCatalog

    from maskrcnn_ext.data import register

    data, folder = rles
    (tmp_path / "a.json").write_text(json.dumps(data))
    register("check_half", format="coco", json=tmp_path / "a.json", images=folder, select=lambda images: images[:4])
    try:
        assert len(find("check_half").data["images"]) == 4
    finally:
        DatasetCatalog.remove("check_half")
        MetadataCatalog.remove("check_half")


@pytest.fixture
def stack(tmp_path):
    """Records of three windows of one array file, the third of which is beyond its end."""
    np.save(tmp_path / "a.npy", np.random.default_rng(0).integers(0, 4000, (30, 60), np.uint16))
    mask = np.zeros((30, 20), bool)
    mask[5:25, 4:16] = True
    images = []
    for number in range(3):
        window = [20 * number, 0, 20, 30] if number < 2 else [50, 0, 20, 30]
        annotations = [annotation_of_mask(mask, 0, id="seven")]
        images.append(ImageRecord(str(tmp_path / "a.npy"), number, 30, 20, annotations, {"window": window}))
    return DataSet(["thing"], images)


def test_windows_of_one_file_are_separate_images(stack):
    found = of_records(stack, "stack")
    assert [entry["id"] for entry in found.data["annotations"]] == [1, 2, 3], "names that are taken become numbers"
    faults = check(found.data, found.folder)
    assert serious(faults) == {("image-corrupt", 2, None)}
    assert "window" in faults[0].message


def test_a_copy_has_only_fields_of_coco(stack, capsys, tmp_path):
    from detectron2.data import DatasetCatalog, MetadataCatalog

    from maskrcnn_ext.data.registry.dicts import to_dicts

    DatasetCatalog.register("check_stack", lambda: to_dicts(stack))
    MetadataCatalog.get("check_stack").set(thing_classes=["thing"])
    try:
        assert main(["check-data", "check_stack", "--fix", str(tmp_path / "b.json")]) == 2
        assert "COCO JSON, which cannot store slices or windows" in capsys.readouterr().err
        assert main(["check-data", "check_stack", "--report", str(tmp_path / "page.html")]) == 1
        assert (tmp_path / "page.html").read_text().count("data:image/jpeg") == 2, (
            "two samples; its only fault cannot be shown"
        )
    finally:
        DatasetCatalog.remove("check_stack")
        MetadataCatalog.remove("check_stack")


def test_keypoints_of_other_formats_keep_their_place_in_coco(tmp_path):
    box = Annotation(0, (1.0, 2.0, 9.0, 9.0), keypoints=[3.5, 4.5, 2.0])
    data = DataSet(["a"], [ImageRecord(str(tmp_path / "a.png"), 1, 10, 10, [box])], None, ["nose"], [])
    (tmp_path / "a.json").write_text(json.dumps(of_records(data, "set").data))
    (record,) = read_coco(tmp_path / "a.json", tmp_path).images
    assert record.annotations[0].keypoints == box.keypoints
    assert record.annotations[0].box == box.box


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a JSON file"),
        ("[]", "not a COCO annotation file"),
        ('{"images": 3, "annotations": [], "categories": []}', "not a COCO"),
    ],
)
def test_files_that_are_not_coco_are_one_line(tmp_path, text, message, capsys):
    (tmp_path / "a.json").write_text(text)
    assert main(["check-data", str(tmp_path / "a.json")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_all_faults_of_a_format_are_listed_and_the_rest_is_read(tmp_path):
    """VOC: a broken file, a missing image, a box outside and a sound one; labelme and VIA the same way."""
    Image.new("L", (50, 40)).save(tmp_path / "a.png")
    box = (
        "<object><name>cat</name><bndbox><xmin>{0}</xmin><ymin>2</ymin><xmax>{1}</xmax><ymax>9</ymax></bndbox></object>"
    )
    image = "<annotation><filename>{0}</filename>{1}</annotation>"
    (tmp_path / "a.xml").write_text(image.format("a.png", box.format(1, 9) + box.format(60, 70) + box.format("x", 9)))
    (tmp_path / "b.xml").write_text("<annotation>")
    (tmp_path / "c.xml").write_text(image.format("c.png", box.format(1, 9)))
    shapes = [{"label": "cat", "points": points} for points in ([[1, 1], [9, 1], [9, 9]], [[1, 1]], "x")]
    (tmp_path / "a.json").write_text(json.dumps({"imagePath": "a.png", "shapes": [*shapes, {"label": 3}]}))
    (tmp_path / "b.json").write_text("{")
    regions = [{"shape_attributes": {"name": "rect", "x": 1, "y": 1, "width": w, "height": 3}} for w in (4, "x", None)]
    entries = {"1": {"filename": "a.png", "regions": regions}, "2": {"filename": "b.png", "regions": []}}
    (tmp_path / "via.txt").write_text(json.dumps(entries))
    for name, places in (
        (
            f"voc:{tmp_path}@{tmp_path}",
            ["a.xml: object 1: box", "a.xml: object 2", "b.xml: not", "c.xml: cannot read image"],
        ),
        (f"labelme:{tmp_path}", ["a.json: shape 1", "a.json: shape 2", "a.json: shape 3", "b.json: not"]),
        (f"via:{tmp_path}/via.txt@{tmp_path}", ["'1', region 1", "'1', region 2", "'2': cannot read image"]),
    ):
        faults = []
        found = find(name, faults=faults)
        assert len(found.data["annotations"]) == 1
        assert len(faults) == len(places)
        assert all(place in fault for place, fault in zip(places, faults, strict=True)), faults
        with pytest.raises(InputError):
            find(name)


def test_options_of_a_coco_string_apply_to_its_records(tmp_path):
    box = {"image_id": 1, "bbox": [1, 1, 4, 4], "iscrowd": 1}
    annotations = [{**box, "id": number, "category_id": number} for number in (1, 2)]
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    images = [{"id": 1, "file_name": "a.png", "height": 8, "width": 8}]
    (tmp_path / "a.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    name = f"coco:{tmp_path}/a.json@{tmp_path}"
    found = find(f"{name}@only:dog@crowds:objects").data
    assert [(entry["id"], entry["iscrowd"]) for entry in found["annotations"]] == [(2, 0)]
    assert found["categories"] == categories[1:]
    with pytest.raises(InputError, match="`only` names the class 'dig': did you mean dog"):
        find(f"{name}@only:dig")


def test_a_file_of_another_format_is_read_by_its_content(tmp_path):
    Image.new("L", (50, 40)).save(tmp_path / "a.png")
    shape = {"label": "cat", "points": [[1, 1], [9, 1], [9, 9]]}
    (tmp_path / "a.json").write_text(json.dumps({"imagePath": "a.png", "shapes": [shape]}))
    assert [entry["name"] for entry in find(str(tmp_path / "a.json")).data["categories"]] == ["cat"]
    with pytest.raises(InputError, match="there is no file"):
        find(str(tmp_path / "b.json"))


def test_a_set_given_by_its_files_is_checked_without_torch(run_python, tmp_path):
    """Whose import takes as long as the check of thousands of images."""
    image = {"id": 1, "file_name": "a.png", "height": 8, "width": 8}
    thing = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4], "area": 16, "iscrowd": 0}
    thing["segmentation"] = [[1, 1, 5, 1, 5, 5, 1, 5]]
    content = {"images": [image], "annotations": [thing], "categories": [{"id": 1, "name": "thing"}]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "images/a.png")
    code = (
        "import sys; from maskrcnn_ext.cli import main; "
        "main(['check-data', 'coco:a.json@images']); print('torch' in sys.modules)"
    )
    done = run_python("-c", code)
    assert done.stdout.splitlines()[-1] == "False", done.stderr
    assert "1 image, 1 object, 1 class" in done.stdout
