"""The evaluator ranks masks by their own scores, and is Detectron2's where there are none."""

import pytest
import torch
from detectron2 import evaluation
from detectron2.structures import Boxes, BoxMode, Instances

from maskrcnn_ext import COCOEvaluator, get_dataset_dicts

SIZE = (64, 96)


def run(evaluator, people, *, mask_scores):
    """Two detections of one object: a good mask and a bad one, which the class score prefers and the mask score does not."""
    evaluator.reset()
    for record in get_dataset_dicts(people):
        found = record["annotations"][0]
        box = torch.tensor(BoxMode.convert(found["bbox"], found["bbox_mode"], BoxMode.XYXY_ABS))
        x0, y0, x1, y1 = box.int().tolist()
        instances = Instances(SIZE, pred_boxes=Boxes(box.float().repeat(2, 1)), pred_classes=torch.tensor([0, 0]))
        instances.scores = torch.tensor([0.9, 0.8])
        instances.pred_masks = torch.zeros(2, *SIZE, dtype=torch.bool)
        instances.pred_masks[0, y0 : y0 + 2, x0 : x0 + 2] = True
        instances.pred_masks[1, y0:y1, x0:x1] = True
        if mask_scores:
            instances.pred_mask_scores = torch.tensor([0.1, 0.8])
        evaluator.process([{"image_id": record["image_id"]}], [{"instances": instances}])
    return evaluator.evaluate()


def test_masks_are_ranked_by_mask_scores_and_boxes_by_class_scores(people):
    get_dataset_dicts(people)
    options = {"dataset_name": people, "tasks": None, "distributed": False, "use_fast_impl": False}
    stock = run(evaluation.COCOEvaluator(**options), people, mask_scores=False)
    ours = run(COCOEvaluator(**options), people, mask_scores=False)
    scored = run(COCOEvaluator(**options), people, mask_scores=True)
    for task in ("bbox", "segm"):
        assert ours[task] == pytest.approx(stock[task], nan_ok=True)
    assert scored["bbox"] == pytest.approx(stock["bbox"], nan_ok=True)
    assert scored["segm"]["AP"] > 1.5 * stock["segm"]["AP"] > 0
