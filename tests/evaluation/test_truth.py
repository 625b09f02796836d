"""Ground truth: other formats are converted, missing fields are filled in, broken content is one line."""

import numpy as np
import pytest

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.evaluation.summary import evaluate
from maskrcnn_ext.evaluation.truth import load_truth
from maskrcnn_ext.ops.rle import segmentation_to_rle
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
    assert segmentation_to_rle({"size": [2, 2], "counts": [1, 2, 1]}, 2, 2)["size"] == [2, 2]


BROKEN_TRUTH = {
    "no list of `annotations`": lambda truth: truth.pop("annotations"),
    "annotation 1 has no `bbox`": lambda truth: truth["annotations"][0].pop("bbox"),
    "annotation 1 is of image 99": lambda truth: truth["annotations"][0].update(image_id=99),
    "annotation 1 is of category 7": lambda truth: truth["annotations"][0].update(category_id=7),
    "image 1 has no `height`": lambda truth: truth["images"][0].pop("height"),
    "no `categories`": lambda truth: truth.update(categories=[]),
    "an `id` is there twice": lambda truth: truth["images"].append(truth["images"][0]),
    "neither an `area`": lambda truth: truth["annotations"][0].update(area=None, segmentation={"counts": 3}),
}


@pytest.mark.parametrize("message", BROKEN_TRUTH)
def test_broken_truth_is_one_line(message):
    truth = truth_of([(1, 0, 10, 10, 20, 20)])
    BROKEN_TRUTH[message](truth)
    with pytest.raises(InputError, match=message) as error:
        evaluate(truth, [])
    assert "\n" not in str(error.value)
