"""The path of a file or folder names a data set by itself, if its format is clear."""

import json

import pytest
from PIL import Image

from maskrcnn_ext import InputError, get_dataset_dicts
from maskrcnn_ext.cli import main
from maskrcnn_ext.data.registry.detect import detect

COCO = {"images": [{"id": 1, "file_name": "a.png", "height": 8, "width": 8}], "categories": [{"id": 1, "name": "cat"}]}
VIA = {"a.png": {"filename": "a.png", "regions": []}}
LABELME = {"imagePath": "a.png", "shapes": []}
ROBOFLOW = [
    {"id": 0, "name": "parts-x", "supercategory": "none"},
    {"id": 1, "name": "bolt", "supercategory": "parts-x"},
    {"id": 2, "name": "nut", "supercategory": "parts-x"},
]


def via_of(*attributes):
    """Returns a VIA file of one region for each of the attributes."""
    return {"a.png": {"filename": "a.png", "regions": [{"region_attributes": each} for each in attributes]}}


def write(folder, name, content=""):
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.mark.parametrize(
    ("files", "path", "expected"),
    [
        ({"a.json": COCO, "images/a.png": ""}, "a.json", "coco:{0}/a.json@{0}/images"),
        (
            {"train/_annotations.coco.json": COCO, "train/a.png": ""},
            "train",
            "coco:{0}/train/_annotations.coco.json@{0}/train",
        ),
        (
            {"annotations/instances_val.json": COCO, "val/a.png": ""},
            ".",
            "coco:{0}/annotations/instances_val.json@{0}/val",
        ),
        # CVAT writes images/<split> or images/<subset>, and images may be anywhere below.
        (
            {"annotations/instances_default.json": COCO, "images/default/a.png": ""},
            ".",
            "coco:{0}/annotations/instances_default.json@{0}/images/default",
        ),
        ({"a.json": COCO, "photos/2024/a.png": ""}, ".", "coco:{0}/a.json@{0}/photos/2024"),
        (
            {"a.json": {**COCO, "images": [{"id": 1, "file_name": "D:\\my\\a.png"}]}, "images/a.png": ""},
            ".",
            "coco:{0}/a.json@{0}/images",
        ),
        (
            {"a.json": {**COCO, "images": [{"file_name": "old/A.PNG"}]}, "images/a.png": ""},
            ".",
            "coco:{0}/a.json@{0}/images",
        ),
        ({"a.json": {**COCO, "images": [{"file_name": "old/a.png"}]}, "x/y/A.PNG": ""}, ".", "coco:{0}/a.json@{0}/x/y"),
        # Names without the folders that the images are in.
        (
            {
                "a.json": {**COCO, "images": [{"file_name": f"{x}.png"} for x in "abc"]},
                **{f"p/{x}/{x}.png": "" for x in "abc"},
            },
            ".",
            "coco:{0}/a.json@{0}/p",
        ),
        # Several folders have images of these names.
        (
            {
                "a.json": {**COCO, "images": [{"file_name": f"{x}.png"} for x in "ab"]},
                "1/a.png": "",
                "2/a.png": "",
                "2/b.png": "",
            },
            ".",
            "coco:{0}/a.json@{0}/2",
        ),
        ({"test_a.json": COCO, "train/a.png": "", "test/a.png": ""}, ".", "coco:{0}/test_a.json@{0}/test"),
        ({"a.json": {**COCO, "categories": ROBOFLOW}, "a.png": ""}, ".", "coco:{0}/a.json@{0}@only:bolt,nut"),
        (
            {"a.json": {**COCO, "categories": ROBOFLOW, "annotations": [{"category_id": 0}]}, "a.png": ""},
            ".",
            "coco:{0}/a.json@{0}",
        ),
        ({"via.json": VIA, "a.png": ""}, "via.json", "via:{0}/via.json@{0}"),
        # The only attribute of all regions is the class.
        ({"v.json": via_of({"kind": "a"}, {"kind": "b"})}, "v.json", "via:{0}/v.json@{0}@attribute:kind"),
        ({"v.json": via_of({"kind": "a"}, {})}, "v.json", "via:{0}/v.json@{0}"),
        ({"v.json": via_of({"kind": "a", "age": "1"})}, "v.json", "via:{0}/v.json@{0}"),
        (
            {"v.csv": "filename,region_shape_attributes,region_attributes\na.png,{},{}", "img/a.png": ""},
            ".",
            "via:{0}/v.csv@{0}/img",
        ),
        ({"via.json": {"_via_img_metadata": VIA}, "images/a.png": ""}, ".", "via:{0}/via.json@{0}/images"),
        ({"v.json": {"attribute": {}, "file": {}, "view": {}, "metadata": {}}}, ".", "via:{0}/v.json@{0}"),
        ({"a.json": LABELME, "b.json": LABELME}, ".", "labelme:{0}"),
        ({"a.json": LABELME}, "a.json", "labelme:{0}"),
        ({"json/a.json": LABELME, "img/a.png": ""}, ".", "labelme:{0}/json@{0}/img"),
        ({"json/a.json": {**LABELME, "imagePath": "..\\img\\a.png"}, "img/a.png": ""}, ".", "labelme:{0}/json"),
        ({"one/x/a.json": LABELME, "two/x/a.json": LABELME}, ".", "labelme:{0}"),
        ({"train/a.json": LABELME, "val/a.json": LABELME}, ".", None),
        ({"__MACOSX/a": "", "export/data.yaml": "names: [cat]", "Thumbs.db": ""}, ".", "yolo:{0}/export/data.yaml"),
        ({"data.yaml": "names: [cat]"}, ".", "yolo:{0}/data.yaml"),
        ({"classes.txt": "cat", "images/a.png": "", "labels/a.txt": ""}, ".", "yolo:{0}/classes.txt"),
        ({"classes.txt": "cat", "train/images/a.png": "", "train/labels/a.txt": ""}, ".", "yolo:{0}/classes.txt"),
        ({"classes.txt": "cat", "images/test/a.png": "", "labels/test/a.txt": ""}, ".", "yolo:{0}/classes.txt"),
        ({"obj.names": "cat", "obj_train_data/a.png": "", "obj_train_data/a.txt": ""}, ".", "yolo:{0}/obj.names"),
        ({"classes.txt": "cat", "a.png": ""}, ".", None),
        ({"data.yaml": "names: [cat]"}, "data.yaml", "yolo:{0}/data.yaml"),
        ({"Annotations/a.xml": "", "JPEGImages/a.jpg": ""}, ".", "voc:{0}/Annotations@{0}/JPEGImages"),
        (
            {"Annotations/a.xml": "", "JPEGImages/a.jpg": "", "SegmentationObject/a.png": ""},
            ".",
            "voc:{0}/Annotations@{0}/JPEGImages@objects:{0}/SegmentationObject",
        ),
        (
            {
                **dict.fromkeys(("Annotations/a.xml", "Annotations/b.xml", "JPEGImages/a.jpg"), ""),
                **dict.fromkeys(("SegmentationObject/a.png", "ImageSets/Segmentation/trainval.txt"), ""),
            },
            ".",
            "voc:{0}/Annotations@{0}/JPEGImages@{0}/ImageSets/Segmentation/trainval.txt@objects:{0}/SegmentationObject",
        ),
        ({"a.xml": "", "a.jpg": ""}, ".", "voc:{0}@{0}"),
        ({"labels/a.xml": "", "images/a.jpg": ""}, ".", "voc:{0}/labels@{0}/images"),
        ({"annotations/xmls/a.xml": "", "images/a.jpg": ""}, ".", "voc:{0}/annotations/xmls@{0}/images"),
        ({"xmls/a.xml": "", "img/a.jpg": ""}, ".", "voc:{0}/xmls@{0}/img"),
        ({"a/images/a.png": "", "a/masks/1.png": ""}, ".", "dsb2018:{0}"),
        (
            {"s/images/a.png": "", "s/images/b.png": "", "s/masks/a.png": ""},
            ".",
            "label_image:{0}/s/masks@{0}/s/images",
        ),
        ({"images/a.png": "", "masks/a.png": ""}, ".", "label_image:{0}/masks@{0}/images"),
        ({"img/a.png": "", "mask/a.png": ""}, ".", "label_image:{0}/mask@{0}/img"),
        ({"images/a.png": "", "annotations/a.png": ""}, ".", "label_image:{0}/annotations@{0}/images"),
        ({"raw/a.png": "", "ground_truth/a.png": ""}, ".", "label_image:{0}/ground_truth@{0}/raw"),
        ({"train_images/a.png": "", "train_masks/a.png": ""}, ".", "label_image:{0}/train_masks@{0}/train_images"),
        ({"train_images/a.png": "", "val_masks/a.png": ""}, ".", None),
        ({"train/a.jpg": "", "train_masks/a_mask.png": ""}, ".", "label_image:{0}/train_masks@{0}/train@suffix:_mask"),
        ({"other/a.png": "", "masks/a.png": ""}, ".", None),
        (
            {"PNGImages/a.png": "", "PedMasks/a_mask.png": "", "Annotation/a.txt": ""},
            ".",
            "label_image:{0}/PedMasks@{0}/PNGImages@suffix:_mask",
        ),
        (
            {
                "ISBI2016_ISIC_Part1_Training_Data/I_1.jpg": "",
                "ISBI2016_ISIC_Part1_Training_GroundTruth/I_1_Segmentation.png": "",
            },
            ".",
            "label_image:{0}/ISBI2016_ISIC_Part1_Training_GroundTruth@{0}/ISBI2016_ISIC_Part1_Training_Data",
        ),
        (
            {
                "Task1-2_Training_Input/I_1.jpg": "",
                "Task1_Training_GroundTruth/I_1_seg.png": "",
                "Task1-2_Test_Input/I_1.jpg": "",
            },
            ".",
            "label_image:{0}/Task1_Training_GroundTruth@{0}/Task1-2_Training_Input@suffix:_seg",
        ),
        ({"PNGImages/a.png": "", "PedMasks/b_mask.png": ""}, ".", None),
        ({"RawImages/a.png": "", "PNGImages/a.png": "", "PedMasks/a.png": ""}, ".", None),
        ({"raw/a.png": "", "input/a.png": "", "truth/a.png": ""}, ".", None),
        (
            {"leftImg8bit/train/x/a_leftImg8bit.png": "", "gtFine/train/x/a_gtFine_instanceIds.png": ""},
            ".",
            "cityscapes:{0}/gtFine/train@{0}/leftImg8bit/train",
        ),
        ({"image_2/a.png": "", "label_2/a.txt": ""}, ".", "kitti:{0}/label_2@{0}/image_2"),
        ({"images/a.jpg": "", "masks/a_mask.png": ""}, ".", "label_image:{0}/masks@{0}/images@suffix:_mask"),
        ({"images/a.jpg": "", "masks/b.png": ""}, ".", "label_image:{0}/masks@{0}/images"),
        ({"images/image_0.jpg": "", "masks/mask_0.png": ""}, ".", "label_image:{0}/masks@{0}/images"),
        ({"a.png": "", "a_masks.png": "", "b.png": ""}, ".", "label_image:{0}@{0}@suffix:_masks"),
        ({"a_img.png": "", "a_masks.png": ""}, ".", "label_image:{0}@{0}@suffix:_masks"),
        ({"a.png": "", "a_cp_masks.png": ""}, ".", "label_image:{0}@{0}@suffix:_cp_masks"),
        ({"a.png": "", "b_masks.png": ""}, ".", None),
        ({"imagesTr/a.nii.gz": "", "labelsTr/a.nii.gz": ""}, ".", "nifti:{0}/imagesTr@{0}/labelsTr"),
        (
            {
                **dict.fromkeys(("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"), ""),
                "dataset.json": {"labels": {"background": 0, "liver": 1, "a b": 2}},
            },
            ".",
            'nifti:{0}/imagesTr@{0}/labelsTr@values:{{"1":"liver","2":"a b"}}@instances:component',
        ),
        (
            {
                **dict.fromkeys(("imagesTr/a.nii.gz", "labelsTr/a.nii.gz"), ""),
                "dataset.json": {"labels": {"0": "background", "1": "liver"}},
            },
            ".",
            'nifti:{0}/imagesTr@{0}/labelsTr@values:{{"1":"liver"}}@instances:component',
        ),
        ({"a.geojson": "{}", "a.tif": ""}, "a.geojson", "geo:{0}/a.geojson@{0}/a.tif"),
        ({"a.geojson": "{}", "a.tif": ""}, ".", "geo:{0}/a.geojson@{0}/a.tif"),
        ({"a.geojson": "{}", "a.png": ""}, "a.geojson", "geo:{0}/a.geojson@{0}/a.png@pixels:true"),
        ({"a.geojson": "{}", "a.png": "", "a.tif": ""}, "a.geojson", "geo:{0}/a.geojson@{0}/a.tif"),
        ({"a.geojson": "{}"}, "a.geojson", None),
        ({"labels/a.geojson": "{}", "images/a.png": ""}, ".", "geo:{0}/labels@{0}/images@pixels:true"),
        (
            {"labels/a.geojson": '{"classification": 1}', "images/a.png": ""},
            ".",
            "geo:{0}/labels@{0}/images@pixels:true@attribute:classification",
        ),
        ({"a.xml": "<annotations><version>"}, "a.xml", "cvat:{0}/a.xml"),
        ({"annotations.xml": "<?xml?><annotations>", "images/a.png": ""}, ".", "cvat:{0}/annotations.xml"),
        ({"a.xml": "<annotations>", "b.xml": "<annotations>"}, ".", None),
        ({"a.xml": "<annotation>"}, "a.xml", None),
        ({"tasks.json": [{"data": {}}], "images/a.png": ""}, ".", "label_studio:{0}/tasks.json@{0}/images"),
        (
            {"tasks.json": [{"data": {}}], "label_config.xml": "<View>", "images/a.png": ""},
            ".",
            "label_studio:{0}/tasks.json@{0}/images",
        ),
        ({"tasks.json": [{"data": {}}]}, "tasks.json", "label_studio:{0}/tasks.json@{0}"),
        ({"meta.json": {"classes": []}, "ds/ann/a.png.json": "{}"}, ".", "supervisely:{0}"),
        ({"p.json": {**COCO, "annotations": [{"segments_info": []}]}}, "p.json", "coco_panoptic:{0}/p.json@{0}"),
        ({"train.json": COCO, "val.json": COCO}, ".", None),
        ({"export/v1/a.json": COCO}, ".", "coco:{0}/export/v1/a.json@{0}/export/v1"),
        ({"a.json": "{", "b.json": "[1]", "c.json": "{}"}, ".", None),
        ({"a.txt": "cat"}, "a.txt", None),
    ],
)
def test_a_format_is_detected_by_content(tmp_path, files, path, expected):
    for name, content in files.items():
        write(tmp_path, name, content)
    assert detect(tmp_path / path) == (expected and expected.format(tmp_path))


def test_a_path_is_a_name_and_one_that_is_not_clear_lists_the_formats(tmp_path, capsys):
    write(
        tmp_path, "a.json", {**COCO, "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4]}]}
    )
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    assert len(get_dataset_dicts(str(tmp_path / "a.json"))) == len(get_dataset_dicts(str(tmp_path))) == 1
    assert main(["convert", str(tmp_path), str(tmp_path / "out"), "--to", "yolo"]) == 0
    assert main(["check-data", str(tmp_path / "out")]) == 0
    assert "1 image, 1 object, 1 class" in capsys.readouterr().out
    for name in ("a", "b"):
        write(tmp_path, f"two/{name}.json", COCO)
    with pytest.raises(InputError, match=r"holds 2 data sets, name one of coco:.*/a\.json@.*, coco:.*/b\.json@"):
        get_dataset_dicts(str(tmp_path / "two"))


@pytest.mark.parametrize(
    "broken",
    [
        *({"images": [{"id": 1, "file_name": name}]} for name in ("", "/", "a" * 300, "a\0", 5)),
        {"annotations": 5},
        {"annotations": [{"category_id": [1]}]},
        {"categories": [{"id": 1}, {"id": 2}]},
        {"categories": [{"id": [0], "name": "x"}, {"id": 1, "name": "bolt", "supercategory": "x"}]},
    ],
)
def test_a_broken_coco_file_is_detected_so_that_its_reader_names_the_fault(tmp_path, broken):
    write(tmp_path, "a.json", {**COCO, "annotations": [], **broken})
    assert detect(tmp_path / "a.json").startswith(f"coco:{tmp_path}/a.json@{tmp_path}")


@pytest.mark.parametrize(("depth", "is_found"), [(2, True), (3, False)])
def test_folders_are_searched_to_a_depth(tmp_path, depth, is_found):
    """Each folder has another one beside it; `whole` has none, as an archive that is unpacked."""
    folder = tmp_path / "whole"
    for _ in range(depth):
        (folder / "other").mkdir(parents=True)
        folder = folder / "data"
    write(folder, "a.json", COCO)
    assert detect(tmp_path) == (f"coco:{folder}/a.json@{folder}" if is_found else None)


@pytest.mark.parametrize("labels", [["liver"], 5, {"liver": None}])
def test_unclear_classes_of_nnunet_are_left_to_the_user(tmp_path, labels):
    for name in ("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"):
        write(tmp_path, name)
    write(tmp_path, "dataset.json", {"labels": labels})
    assert detect(tmp_path) == f"nifti:{tmp_path}/imagesTr@{tmp_path}/labelsTr"
