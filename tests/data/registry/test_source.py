"""Checks after every reader: files where folders are expected, and objects outside of their image."""

import json

import pytest
from PIL import Image

from maskrcnn_ext import InputError
from maskrcnn_ext.data.registry.catalog import load_dataset
from maskrcnn_ext.data.registry.source import Source


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
    assert "1 objects have no area or lie outside of their image, such as one of image 'a'" in caplog.text
