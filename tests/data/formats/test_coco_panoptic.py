"""COCO panoptic: things are objects, stuff is left out, and errors name the segment."""

import json

import cv2
import numpy as np
import pytest

from maskrcnn_ext import InputError
from maskrcnn_ext.data.formats.coco_panoptic import read_coco_panoptic
from maskrcnn_ext.ops.rle import decode_rle

CATEGORIES = [
    {"id": 3, "name": "cat", "isthing": 1},
    {"id": 9, "name": "sky", "isthing": 0},
    {"id": 5, "name": "dog", "isthing": 1},
]
SEGMENTS = [
    {"id": 300, "category_id": 5, "iscrowd": 0},
    {"id": 66000, "category_id": 3, "iscrowd": 1},
    {"id": 2, "category_id": 9, "iscrowd": 0},
]


@pytest.fixture
def read(tmp_path):
    numbers = np.zeros((40, 60), int)
    numbers[:10], numbers[20:25, 5:9], numbers[30:, 50:] = 2, 300, 66000
    colours = np.stack([numbers & 255, numbers >> 8 & 255, numbers >> 16], axis=2).astype(np.uint8)
    (tmp_path / "panoptic").mkdir()
    cv2.imwrite(str(tmp_path / "panoptic/a.png"), colours[..., ::-1])  # OpenCV takes blue first

    def read(segments=SEGMENTS, categories=CATEGORIES, image_id=1, **options):
        content = {
            "images": [{"id": 1, "file_name": "a.jpg", "height": 40, "width": 60}],
            "annotations": [{"image_id": image_id, "file_name": "a.png", "segments_info": segments}],
            "categories": categories,
        }
        (tmp_path / "panoptic.json").write_text(json.dumps(content))
        return read_coco_panoptic(tmp_path / "panoptic.json", tmp_path / "images", **options)

    return read


def test_things_are_objects_and_stuff_is_left_out(read, tmp_path):
    data = read()
    assert (data.classes, data.category_ids) == (["cat", "dog"], [3, 5])
    assert data.images[0].file_name == str(tmp_path / "images/a.jpg")
    dog, cats = data.images[0].annotations
    assert (dog.category, dog.box, dog.crowd, dog.id) == (1, (5, 20, 9, 25), False, 300)
    assert (cats.category, cats.box, cats.crowd) == (0, (50, 30, 60, 40), True)
    assert decode_rle(dog.segmentation).sum() == 20
    assert read(segments=[]).images[0].annotations == []
    as_text = [{**segment, "category_id": str(segment["category_id"])} for segment in SEGMENTS]
    assert read(as_text).images[0].annotations == data.images[0].annotations


def test_broken_files_are_named(read, tmp_path):
    for segments, message in [
        ([{"id": 7, "category_id": 3}], "segment 7: no pixel of .* has its colour"),
        ([{"id": 300, "category_id": 4}], "segment 300 refers to category 4, which is missing"),
        ([{"id": 300, "category_id": [4]}], r"segment 300 refers to category \[4\]"),
        ([{"category_id": 3}], "a segment has no `id`"),
        ([3], "a segment has no `id`"),
    ]:
        with pytest.raises(InputError, match=f"entry 0 of `annotations`.*{message}"):
            read(segments)
        faults = []
        assert len(read([*segments, SEGMENTS[0]], faults=faults).images[0].annotations) == 1
        assert len(faults) == 1
    with pytest.raises(InputError, match=r"category has the `id` \[9\], expected a number or a text"):
        read(categories=[CATEGORIES[0], {**CATEGORIES[1], "id": [9]}])
    with pytest.raises(InputError, match="has no list `segments_info`"):
        read(None)
    with pytest.raises(InputError, match="refers to image 8, which is missing"):
        read(image_id=8)
    with pytest.raises(InputError, match=r"`classes` are cow, but the things of .* are cat, dog"):
        read(classes=["cow"])
    cv2.imwrite(str(tmp_path / "panoptic/a.png"), np.zeros((40, 60), np.uint8))
    with pytest.raises(InputError, match="expected a colour PNG of 60 x 40"):
        read()
