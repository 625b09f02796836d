"""The annotations of COCO JSON are parsed without a file, as the evaluation does for ground truth."""

import pytest

from maskrcnn_ext.data.formats.coco_annotations import add_annotations
from maskrcnn_ext.data.formats.coco_records import parse_categories, parse_images
from maskrcnn_ext.errors import InputError

CATEGORIES = [{"id": 9, "name": "b", "keypoints": ["tip"]}, {"id": 4, "name": "a"}]
IMAGE = {"id": 2, "height": 40, "width": 60}
OBJECT = {"image_id": 2, "category_id": 9, "bbox": [1, 2, 10, 12], "segmentation": [[1, 2, 11, 2, 11, 14]]}


def test_ground_truth_needs_neither_files_nor_ids_of_annotations():
    categories, images = parse_categories(CATEGORIES, "truth"), parse_images([IMAGE], "truth")
    (added,) = add_annotations([OBJECT], images, categories, "truth", for_evaluation=True)
    assert images[2].annotations == [added]
    assert (added.category, added.box, added.segmentation) == (1, (1, 2, 11, 14), OBJECT["segmentation"])


def test_training_needs_the_ids_of_annotations():
    categories, images = parse_categories(CATEGORIES, "truth"), parse_images([IMAGE], "truth")
    with pytest.raises(InputError, match="truth: entry 0 of `annotations` has no `id`"):
        add_annotations([OBJECT], images, categories, "truth")


def test_an_outline_without_area_is_not_added():
    categories, images = parse_categories(CATEGORIES, "truth"), parse_images([IMAGE], "truth")
    line = {**OBJECT, "segmentation": [[1, 2, 11, 2]]}
    assert add_annotations([line], images, categories, "truth", for_evaluation=True) == [None]
    assert images[2].annotations == []
