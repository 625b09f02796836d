"""The report of a diverged iteration: the batch on disk, its picture and the text."""

import numpy as np
import pytest
import torch
from detectron2.structures import BitMasks, Boxes, Instances, Keypoints, PolygonMasks
from PIL import Image
from torch import nn

from maskrcnn_ext import InputError
from maskrcnn_ext.engine.guard.diagnosis import DivergedIteration, RerunResult
from maskrcnn_ext.engine.guard.report import draw_batch, load_batch, save_batch, write_report
from maskrcnn_ext.ops.image_colors import ImageColors
from maskrcnn_ext.ops.unlabelled import IgnoreRegion, Unlabelled


def make_sample():
    instances = Instances((20, 30))
    instances.gt_boxes = Boxes(torch.tensor([[1.0, 2.0, 9.0, 8.0], [4.0, 4.0, 4.0, 9.0], [0.0, 0.0, torch.inf, 1.0]]))
    instances.gt_classes = torch.tensor([0, 1, 1])
    instances.gt_masks = PolygonMasks([[np.array([1.0, 2, 9, 2, 9, 8])]] * 3)
    instances.gt_keypoints = Keypoints(torch.rand(3, 2, 3))
    image = torch.rand(3, 20, 30)
    return {"image": image, "instances": instances, "image_id": np.int64(7), "file_name": "a.png", "more": (1, None)}


def test_a_batch_can_be_read_back(tmp_path):
    sample = make_sample()
    sample["instances"].masks = BitMasks(torch.ones(3, 20, 30, dtype=torch.bool))
    region = IgnoreRegion(torch.rand(20, 30) > 0.5)
    sample["instances"].gt_unlabelled = Unlabelled(3, region, torch.tensor([1]))
    sample["instances"].open = Unlabelled(3, None, None)
    sample["instances"].gt_image = ImageColors(3, sample["image"], is_bgr=True)
    save_batch([sample], tmp_path / "batch.pth", iteration=3)
    assert torch.load(tmp_path / "batch.pth", weights_only=True)["iteration"] == 3
    (found,) = load_batch(tmp_path / "batch.pth")
    assert torch.equal(found["image"], sample["image"])
    assert (found["image_id"], found["file_name"], found["more"]) == (7, "a.png", [1, None])
    ours, theirs = found["instances"], sample["instances"]
    assert ours.image_size == (20, 30)
    assert torch.equal(ours.gt_boxes.tensor, theirs.gt_boxes.tensor)
    assert torch.equal(ours.gt_keypoints.tensor, theirs.gt_keypoints.tensor)
    assert torch.equal(ours.masks.tensor, theirs.masks.tensor)
    assert torch.equal(ours.gt_unlabelled.region.mask, region.mask)
    assert ours.gt_unlabelled.labelled_classes.tolist() == [1]
    assert (len(ours.open), ours.open.region, ours.open.labelled_classes) == (3, None, None)
    assert torch.equal(ours.gt_image.pixels, sample["image"])
    assert ours.gt_image.is_bgr
    assert np.array_equal(ours.gt_masks.polygons[2][0], theirs.gt_masks.polygons[2][0])


@pytest.mark.parametrize("content", [None, b"text", {"model": 1}])
def test_files_of_another_content_are_one_line(tmp_path, content):
    path = tmp_path / "a.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(InputError, match="not a batch written by the divergence guard"):
        load_batch(path)


def test_the_picture_frames_the_marked_objects(tmp_path):
    draw_batch([make_sample()] * 5, list("abcde"), [False, True, False, False, True], "RGB", tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        height = round(20 * 476 / 30) + 20
        assert picture.size == (4 * 480, 2 * height)
        frames = [picture.getpixel((480 * (index % 4), height * (index // 4))) for index in range(5)]
    assert [frame == (255, 40, 40) for frame in frames] == [False, True, False, False, True]


def test_the_text_lists_norms_and_a_batch_without_images(tmp_path):
    model = nn.Sequential(nn.Linear(2, 1), nn.ReLU())
    nn.init.constant_(model[0].weight, torch.nan)
    diverged = DivergedIteration(4, {"loss": torch.inf}, "", [0.1], [{"x": 1}], [[]], RerunResult(), history=[1.0])
    text = write_report(diverged, model, tmp_path / "new").read_text()
    assert text.startswith("Diverged in iteration 4, process 0 of 1: loss is inf\n")
    assert "total losses before: 1\n" in text
    assert "modules with weights that are not finite: 0 (2 values)\n" in text
    assert text.splitlines()[-1].split() == ["nan", "-", "0"]
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["batch.pth", "report.txt"]
