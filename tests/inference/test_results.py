"""COCO's results hold all of a prediction, and pycocotools reads them."""

import json

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_util
from pycocotools.coco import COCO

from maskrcnn_ext.inference.results import from_coco, to_coco
from maskrcnn_ext.ops.rle_masks import RLEMasks

SIZE = (20, 30)
IDS = (7, 3, 90)


def prediction(count, seed=0):
    rng = np.random.default_rng(seed)
    found = Instances(SIZE)
    corners = np.sort(rng.uniform(0, 20, (count, 2, 2)), axis=1)
    found.pred_boxes = Boxes(torch.from_numpy(corners.reshape(count, 4)).float())
    found.scores = torch.from_numpy(rng.random(count)).float()
    found.pred_classes = torch.from_numpy(rng.integers(0, 3, count))
    dense = rng.random((count, *SIZE)) < 0.3
    found.pred_masks = RLEMasks([mask_util.encode(np.asfortranarray(m, dtype=np.uint8)) for m in dense], SIZE)
    found.pred_keypoints = torch.from_numpy(rng.uniform(0, 20, (count, 4, 3))).float()
    found.pred_mask_scores = torch.from_numpy(rng.random(count)).float()
    found.track_ids = torch.arange(count) + 5
    return found


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 5), seed=st.integers(0, 99))
def test_nothing_is_lost_through_json(count, seed):
    found = prediction(count, seed)
    back = from_coco(json.loads(json.dumps(to_coco(found, 12, IDS))), SIZE, IDS)
    assert back.image_size == SIZE
    assert back.get_fields().keys() == found.get_fields().keys()
    assert back.pred_masks.rles == [{**rle, "size": list(SIZE)} for rle in found.pred_masks.rles]
    assert torch.equal(back.pred_classes, found.pred_classes)
    assert torch.equal(back.track_ids, found.track_ids)
    assert torch.equal(back.scores, found.scores)
    assert torch.equal(back.pred_mask_scores, found.pred_mask_scores)
    torch.testing.assert_close(back.pred_boxes.tensor, found.pred_boxes.tensor, atol=1e-6, rtol=0)
    torch.testing.assert_close(back.pred_keypoints, found.pred_keypoints, atol=1e-6, rtol=0)
    # A second time nothing moves at all.
    assert to_coco(from_coco(to_coco(back, 12, IDS), SIZE, IDS), 12, IDS) == to_coco(back, 12, IDS)


def test_golden_values():
    found = prediction(1)
    found.pred_boxes = Boxes(torch.tensor([[1.0, 2.0, 4.0, 7.5]]))
    found.pred_classes = torch.tensor([1])
    found.scores = torch.tensor([0.75])
    found.pred_keypoints = torch.tensor([[[3.5, 4.5, 0.25]]])
    (result,) = to_coco(found, "x", IDS)
    assert result["image_id"] == "x"
    assert result["category_id"] == 3
    assert result["bbox"] == [1.0, 2.0, 3.0, 5.5]
    assert result["score"] == 0.75
    assert result["keypoints"] == [3.0, 4.0, 0.25]  # the first pixel's centre is at 0 in COCO
    assert result["segmentation"]["size"] == [20, 30]
    assert result["track_id"] == 5


def test_no_objects_and_models_without_masks():
    assert to_coco(prediction(0), 1, IDS) == []
    none = from_coco([], SIZE, IDS)
    assert len(none) == 0
    assert none.pred_boxes.tensor.shape == (0, 4)
    found = prediction(2)
    for field in ("pred_masks", "pred_keypoints", "pred_mask_scores", "track_ids"):
        found.remove(field)
    results = to_coco(found, 1, IDS)
    assert results[0].keys() == {"image_id", "category_id", "bbox", "score"}
    assert from_coco(results, SIZE, IDS).get_fields().keys() == {"pred_boxes", "scores", "pred_classes"}


def test_pycocotools_loads_them():
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": 12, "height": SIZE[0], "width": SIZE[1]}],
        "categories": [{"id": own, "name": str(own)} for own in IDS],
    }
    truth.createIndex()
    found = prediction(3)
    loaded = truth.loadRes(to_coco(found, 12, IDS))
    areas = [loaded.anns[number]["area"] for number in sorted(loaded.anns)]
    assert [mask_util.area(loaded.annToRLE(ann)) for ann in loaded.anns.values()] == found.pred_masks.areas().tolist()
    assert areas == pytest.approx((found.pred_boxes.area()).tolist(), rel=1e-5)
