"""COCO's AP: all sides compute the same."""

from maskrcnn_ext.benchmark.evaluation import make_detections
from tests.benchmark.conftest import sides


def test_all_sides_are_measured_and_agree(tables):
    boxes, masks = tables("evaluation", "--images", 3, "--objects", 4, "--classes", 2)
    for table in (boxes, masks):
        assert sides(table)[0] == "pycocotools"
        assert sides(table)[-1] == "maskrcnn_ext's matching"


def test_each_object_has_three_detections_near_it():
    content, results = make_detections(2, 5, 3)
    assert len(content["annotations"]) == 10
    assert len(results) == 30
    for annotation, result in zip(content["annotations"], results[::3], strict=True):
        assert result["category_id"] == annotation["category_id"]
        assert abs(result["bbox"][0] - annotation["bbox"][0]) < 30
