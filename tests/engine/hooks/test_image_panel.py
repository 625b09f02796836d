"""The panel shows ground truth and prediction of the first test images, and does not affect training."""

import copy
import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn

from maskrcnn_ext.engine.hooks.image_panel import ImagePanel, load_panel_data
from maskrcnn_ext.errors import InputError
from tests.helpers.toy_training import random_states, same_states, same_weights, small_config, small_model, snapshot


@pytest.fixture(scope="module")
def cfg(shapes):
    return small_config(f"coco:{shapes}@{shapes.parent / 'images'}")


class Oracle(nn.Module):
    """Returns the given masks, and one more with a low score."""

    def __init__(self, masks):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.masks = masks

    def forward(self, batch):
        masks = self.masks[batch[0]["image_id"]]
        found = Instances(masks.shape[1:])
        found.pred_masks = torch.cat([masks, torch.ones(1, *masks.shape[1:], dtype=torch.bool)])
        found.scores = torch.tensor([0.9] * len(masks) + [0.2])
        found.pred_classes = torch.zeros(len(found.scores), dtype=torch.int64)
        found.pred_boxes = Boxes(torch.tensor([[5.0, 5, 20, 20]]).repeat(len(found.scores), 1))
        return [{"instances": found}]


def at_evaluation(hook, iteration=7, max_iter=20):
    hook.trainer = trainer = SimpleNamespace(iter=iteration, max_iter=max_iter)
    with EventStorage(iteration) as trainer.storage:
        hook.at_evaluation()
    return trainer.storage


def test_a_row_shows_truth_and_prediction(cfg, tmp_path):
    data = load_panel_data(cfg, 2)
    assert len(data.classes) == 5
    records = [copy.deepcopy(image.record) for image in data.images]
    # Image 0: nothing found; image 1: one object in the left upper corner.
    masks = {records[0]["image_id"]: torch.zeros(0, 96, 96, dtype=torch.bool)}
    masks[records[1]["image_id"]] = torch.zeros(1, 96, 96, dtype=torch.bool)
    masks[records[1]["image_id"]][0, 5:20, 5:20] = True
    storage = at_evaluation(ImagePanel(1, Oracle(masks), lambda: data, output_dir=str(tmp_path)))

    picture = cv2.imread(str(tmp_path / "panels/0000007.png"))
    side = 480
    assert picture.shape == (2 * (side + 6), 2 * side + 6, 3)
    plain = [cv2.resize(cv2.imread(r["file_name"]), (side, side), interpolation=cv2.INTER_NEAREST) for r in records]
    assert not np.array_equal(picture[:side, :side], plain[0]), "the truth is drawn"
    assert np.array_equal(picture[:side, side + 6 :], plain[0][:, :]), "nothing is found: the image as it is"
    second = picture[side + 6 : -6, side + 6 :]
    changed = (second != plain[1]).any(axis=2)
    assert changed[25:100, 25:100].mean() > 0.9, "the object"
    assert not changed[130:].any(), "and not the one of a low score"

    images = {name: (pixels, iteration) for name, pixels, iteration in storage._vis_data}
    assert images.keys() == {"panel/0", "panel/1"}
    pixels, iteration = images["panel/1"]
    assert iteration == 7
    assert np.array_equal(pixels.transpose(1, 2, 0)[:, :, ::-1], picture[side + 6 : -6])


def test_training_is_not_affected(cfg, tmp_path):
    model = small_model(cfg).train()
    loads = []
    hook = ImagePanel(
        1, model, lambda: loads.append(1) or load_panel_data(cfg, 1), output_dir=str(tmp_path), min_score=0.0
    )
    before, weights = random_states(), snapshot(model)
    for iteration in (1, 2):
        at_evaluation(hook, iteration)
    assert same_states(before, random_states())
    assert same_weights(weights, snapshot(model))
    assert all(module.training for module in model.modules())
    assert len(loads) == 1
    assert sorted(file.name for file in (tmp_path / "panels").iterdir()) == ["0000001.png", "0000002.png"]


def test_after_training_the_name_is_that_of_the_last_iteration(cfg, tmp_path):
    data = load_panel_data(cfg, 1)
    masks = {data.images[0].record["image_id"]: torch.zeros(0, 96, 96, dtype=torch.bool)}
    at_evaluation(ImagePanel(1, Oracle(masks), lambda: data, output_dir=str(tmp_path)), iteration=20)
    assert (tmp_path / "panels/0000019.png").is_file()


def test_data_of_every_kind_is_drawn(shapes, tmp_path):
    """An image of 16 bits, one without objects, an empty outline, and fewer images than requested."""
    data = json.loads(shapes.read_text())
    grey = np.arange(64 * 48, dtype=np.uint16).reshape(48, 64)
    cv2.imwrite(str(tmp_path / "deep.png"), grey)
    cv2.imwrite(str(tmp_path / "empty.png"), np.zeros((96, 32, 3), np.uint8))
    data["images"] = [
        {"id": 1, "file_name": "deep.png", "height": 48, "width": 64},
        {"id": 2, "file_name": "empty.png", "height": 96, "width": 32},
    ]
    box = {"image_id": 1, "iscrowd": 0, "category_id": data["categories"][0]["id"]}
    data["annotations"] = [
        {**box, "id": 1, "bbox": [4, 4, 20, 20], "area": 400, "segmentation": [[4, 4, 24, 4, 24, 24, 4, 24]]},
        {**box, "id": 2, "bbox": [30, 4, 20, 20], "area": 400, "segmentation": []},
    ]
    file = tmp_path / "val.json"
    file.write_text(json.dumps(data))
    cfg = small_config(f"coco:{file}@{tmp_path}")
    cfg.dataloader.test.mapper._target_ = "maskrcnn_ext.SafeMapper"
    found = load_panel_data(cfg, 5)
    assert len(found.images) == 2
    masks = {1: torch.zeros(0, 48, 64, dtype=torch.bool), 2: torch.zeros(0, 96, 32, dtype=torch.bool)}
    at_evaluation(ImagePanel(1, Oracle(masks), lambda: found, output_dir=str(tmp_path)))
    picture = cv2.imread(str(tmp_path / "panels/0000007.png"))
    assert picture.shape == (360 + 480 + 12, 966, 3)
    assert picture[:360, :480].std() > 10, "values of 16 bits are spread"
    assert (picture[366:-6, 330:] == 255).all(), "a narrower row is filled up"


def test_a_missing_image_is_one_line(cfg, tmp_path):
    data = load_panel_data(cfg, 1)
    data.images[0].record["file_name"] = "gone.png"
    masks = {data.images[0].record["image_id"]: torch.zeros(0, 96, 96, dtype=torch.bool)}
    with pytest.raises(InputError, match=r"gone.png: no such file"):
        at_evaluation(ImagePanel(1, Oracle(masks), lambda: data, output_dir=str(tmp_path)))
