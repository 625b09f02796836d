"""The canvas around images, and boxes converted between canvas and image."""

from __future__ import annotations

import pytest
import torch
from detectron2.structures import Boxes
from torch import nn

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.modeling.matterport.rcnn import Frame, LetterboxRCNN, canvas_size, centred


def test_canvas_and_window():
    assert canvas_size([(100, 65), (64, 130)], 0) == (128, 192)
    assert canvas_size([(100, 65)], 512) == (512, 512)
    assert centred((100, 65), (128, 128)) == (31, 14, 96, 114)


def frames(**more):
    return Frame(window=(0, 16, 128, 112), output_size=(481, 640), **more)


def test_boxes_are_mapped_from_the_canvas_as_by_matterport():
    boxes = torch.tensor([[0.0, 16, 128, 112], [10, 20, 40, 60]])
    outward = Boxes(frames().outward(boxes))
    outward.scale(640 / 128, 481 / 96)  # as Detectron2's postprocessing
    # The window is the whole image. Else (10 - 0) / 127 * 639, (20 - 16) / 95 * 480, and the same of the last pixels.
    expected = [[0, 0, 640, 481], [10 / 127 * 639, 4 / 95 * 480, 39 / 127 * 639 + 1, 43 / 95 * 480 + 1]]
    assert torch.allclose(outward.tensor, torch.tensor(expected), atol=1e-3)
    rounded = Boxes(frames(round_boxes=True).outward(boxes))
    rounded.scale(640 / 128, 481 / 96)
    assert torch.allclose(rounded.tensor, torch.tensor(expected).round(), atol=1e-4)
    assert torch.allclose(frames().inward(frames().outward(boxes)), boxes, atol=1e-3)


def test_a_frame_of_one_pixel():
    frame = Frame(window=(31, 31, 32, 32), output_size=(1, 1))
    assert frame.outward(torch.tensor([[31.0, 31, 32, 32]])).tolist() == [[0, 0, 1, 1]]


@pytest.mark.parametrize("training", [False, True])
def test_images_are_padded_with_black_before_the_mean_is_subtracted(training):
    parts = {name: nn.Identity() for name in ("backbone", "proposal_generator", "roi_heads")}
    model = LetterboxRCNN(**parts, pixel_mean=[10.0, 20, 30], pixel_std=[1.0, 1, 2], square_size=64).train(training)
    batch = [{"image": torch.full((3, *size), 50, dtype=torch.uint8)} for size in ((20, 64), (64, 33))]
    images = model.preprocess_image(batch)
    assert images.image_sizes == [(20, 64), (64, 33)]
    expected = torch.zeros(2, 3, 64, 64)
    if training:
        expected[0, :, :20], expected[1, :, :, :33] = 50, 50
    else:
        expected[0, :, 22:42], expected[1, :, :, 15:48] = 50, 50
    mean, std = torch.tensor([10.0, 20, 30]).view(3, 1, 1), torch.tensor([1.0, 1, 2]).view(3, 1, 1)
    assert torch.equal(images.tensor, (expected - mean) / std)


def test_keypoints_are_refused():
    heads = nn.Identity()
    heads.keypoint_on = True
    parts = {"backbone": nn.Identity(), "proposal_generator": nn.Identity(), "roi_heads": heads}
    with pytest.raises(InputError, match="has no keypoints"):
        LetterboxRCNN(**parts, pixel_mean=[0.0], pixel_std=[1.0])
