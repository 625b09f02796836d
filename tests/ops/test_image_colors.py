"""CIELAB against OpenCV, and the colours of cells."""

import cv2
import numpy as np
import torch

from maskrcnn_ext.ops.image_colors import ImageColors, rgb_to_lab


def test_lab_is_that_of_opencv():
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    pixels[0, 0], pixels[0, 1] = 0, 255
    expected = cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    found = rgb_to_lab(torch.from_numpy(pixels).permute(2, 0, 1).double() / 255)
    np.testing.assert_allclose(found.permute(1, 2, 0).numpy(), expected, atol=0.3)  # OpenCV interpolates a table


def test_crops_are_means_of_cells():
    pixels = torch.zeros(3, 8, 8, dtype=torch.uint8)
    pixels[0, :, 4:] = 255  # blue, or red
    red, blue = (
        ImageColors(2, pixels, is_bgr=is_bgr).crops(torch.tensor([[0.0, 0, 8, 8], [4, 0, 8, 4]]), 2)
        for is_bgr in (False, True)
    )
    assert red.shape == (2, 3, 2, 2)
    assert red[0, :, 0, 0].abs().max() < 1e-3, "black"
    assert torch.allclose(red[1, :, 1, 1], torch.tensor([53.24, 80.09, 67.20]), atol=0.1)
    assert torch.allclose(blue[1, :, 1, 1], torch.tensor([32.30, 79.19, -107.86]), atol=0.1)


def test_other_images_are_grey_values():
    values = torch.arange(64.0).view(1, 8, 8).repeat(4, 1, 1) - 1000
    found = ImageColors(1, values, is_bgr=False).crops(torch.tensor([[0.0, 0, 8, 8]]), 8)
    assert found[:, 1:].abs().max() == 0
    assert torch.allclose(found[0, 0].flatten(), torch.linspace(0, 100, 64), atol=1e-2)
    flat = ImageColors(1, torch.full((2, 4, 4), 7.0), is_bgr=False).to("cpu")
    assert flat.crops(torch.tensor([[0.0, 0, 4, 4]]), 2).abs().max() == 0
    assert len(flat) == 1
