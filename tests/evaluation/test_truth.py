"""Ground truth is completed, and its first fault is reported in one line, as when training reads it."""

import numpy as np
import pytest

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.evaluation.summary import evaluate
from maskrcnn_ext.evaluation.truth import load_truth
from tests.helpers.scenes import truth_of


def test_a_data_set_of_another_format_is_a_truth(tmp_path):
    import cv2

    labels = np.zeros((40, 60), np.uint16)
    labels[5:15, 5:25], labels[20:30, 30:50] = 1, 2
    for folder, pixels in (("images", np.zeros((40, 60, 3), np.uint8)), ("labels", labels)):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / "a.png"), pixels)
    truth = load_truth(f"label_image:{tmp_path / 'labels'}@{tmp_path / 'images'}")
    assert [own["area"] for own in truth.annotations] == [200, 200]
    assert [own["bbox"] for own in truth.annotations] == [[5, 5, 20, 10], [30, 20, 20, 10]]
    keys = ("image_id", "category_id", "bbox", "segmentation")
    results = [{key: own[key] for key in keys} | {"score": 1.0} for own in truth.annotations]
    assert evaluate(truth, results)["tasks"]["segm"]["AP"] == pytest.approx(100)


@pytest.mark.parametrize("outline", [[], [[]], None])
def test_an_outline_without_points_is_no_outline(outline):
    """As Label Studio writes a rectangle among polygons."""
    truth = truth_of([(1, 0, 10, 10, 20, 20), (1, 0, 60, 60, 30, 20)])
    truth["annotations"][1]["segmentation"] = outline
    known = load_truth(truth)
    assert known.allows("bbox")
    assert not known.allows("segm")
    assert "1 of 2 objects" in known.why_not("boundary")


def test_truth_is_completed():
    truth = truth_of([(1, 0, 10, 10, 20, 20), (1, 0, 60, 60, 30, 20)])
    for own in truth["annotations"]:
        del own["area"], own["iscrowd"], own["id"]
    truth["annotations"][0]["segmentation"] = [[10, 10, 30, 10, 30, 20, 10, 20]]
    truth["annotations"][1].pop("segmentation")
    truth["annotations"][1].update(keypoints=[70, 70, 2, 80, 70, 0])
    known = load_truth(truth)
    assert [(own["id"], own["area"], own["iscrowd"]) for own in known.annotations] == [(1, 200, 0), (2, 600, 0)]
    assert [own["num_keypoints"] for own in known.annotations] == [0, 1]
    assert known.allows("keypoints")
    assert not known.allows("segm")


BROKEN_TRUTH = {
    "no list of `annotations`": lambda truth: truth.pop("annotations"),
    "annotation 1 has no `bbox`": lambda truth: truth["annotations"][0].pop("bbox"),
    "annotation 1 refers to image 99, which is missing": lambda truth: truth["annotations"][0].update(image_id=99),
    "annotation 1 refers to category 7, which is missing": lambda truth: truth["annotations"][0].update(category_id=7),
    "image 1: `height` is None": lambda truth: truth["images"][0].pop("height"),
    "`categories` is empty": lambda truth: truth.update(categories=[]),
    "two images have the id 1": lambda truth: truth["images"].append(truth["images"][0]),
    "annotation 1 has an RLE of size None": lambda truth: truth["annotations"][0].update(segmentation={"counts": 3}),
    "annotation 1 has the `area` '400', expected a number": lambda truth: truth["annotations"][0].update(area="400"),
    "annotation 1 has the `iscrowd` 'no'": lambda truth: truth["annotations"][0].update(iscrowd="no"),
    r"annotation 1 has the `category_id` \[1\]": lambda truth: truth["annotations"][0].update(category_id=[1]),
    r"annotation 1 has the `bbox` \[1, nan, 2, 3\]": lambda truth: truth["annotations"][0].update(
        bbox=[1, float("nan"), 2, 3]
    ),
    "neither a list of polygons": lambda truth: truth["annotations"][0].update(
        segmentation=[["1", "2", "3", "4", "5", "6"]]
    ),
    "entry 0 of `annotations` is a str": lambda truth: truth.update(annotations=["x"]),
    "ids of `images` are of different types": lambda truth: truth["images"].append({"id": "2"}),
}


@pytest.mark.parametrize("message", BROKEN_TRUTH)
def test_broken_truth_is_one_line(message):
    truth = truth_of([(1, 0, 10, 10, 20, 20)])
    BROKEN_TRUTH[message](truth)
    with pytest.raises(InputError, match=message) as error:
        load_truth(truth)
    assert "\n" not in str(error.value)


def test_outlines_without_area_are_left_out(caplog):
    truth = truth_of([(1, 0, 10, 10, 20, 20), (1, 0, 60, 60, 30, 20)])
    stray, square = [30, 30, 30, 34], [10, 10, 30, 10, 30, 30, 10, 30]
    truth["annotations"][0]["segmentation"] = [stray, square]
    truth["annotations"][1]["segmentation"] = [stray]
    (kept,) = load_truth(truth).annotations
    assert kept["segmentation"] == [square]
    assert "left out 1 annotation whose outline has no area, such as id 2" in caplog.text


def test_no_annotations_are_a_truth():
    known = load_truth({**truth_of([(1, 0, 10, 10, 20, 20)]), "annotations": []})
    assert known.annotations == []
    assert len(known.as_coco().imgs) == len(known.images) > 0


def test_predictions_of_a_class_that_an_image_does_not_label_do_not_count():
    truth = truth_of([(1, 0, 10, 10, 20, 20), (2, 1, 60, 60, 30, 20)], images=2, classes=2)
    results = [
        {"image_id": own["image_id"], "category_id": own["category_id"], "bbox": own["bbox"], "score": 0.5}
        for own in truth["annotations"]
    ]
    # Better scored, of a class that image 1 may not label.
    extra = {"image_id": 1, "category_id": truth["categories"][1]["id"], "bbox": [40, 5, 9, 9], "score": 0.9}
    assert evaluate(truth, [*results, extra])["tasks"]["bbox"]["AP"] < 90
    truth["images"][0]["labelled_category_ids"] = [truth["categories"][0]["id"]]
    assert evaluate(truth, [*results, extra])["tasks"]["bbox"]["AP"] == pytest.approx(100)
