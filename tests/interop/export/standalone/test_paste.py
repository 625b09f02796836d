"""Masks and keypoints in the image, against Detectron2 and torchvision."""

from __future__ import annotations

import numpy as np
import torch
from detectron2.layers.mask_ops import paste_masks_in_image
from detectron2.structures.keypoints import heatmaps_to_keypoints
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection.roi_heads import paste_masks_in_image as paste_as_torchvision

from maskrcnn_ext.interop.export.standalone.paste import full_masks, keypoints, paste, paste_whole_pixels


@given(st.integers(0, 2**32 - 1), st.sampled_from([7, 14, 28, 112]))
@settings(max_examples=30, deadline=None)
def test_masks_are_pasted_as_by_detectron2(seed, side):
    rng = np.random.default_rng(seed)
    size = (int(rng.integers(1, 90)), int(rng.integers(1, 90)))
    corners = rng.uniform(0, 1, (6, 2, 2)) * [size[1], size[0]]
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).astype(np.float32)
    boxes[0] = np.round(boxes[0])
    boxes[1, 2:] = boxes[1, :2]
    masks = rng.random((6, side, side), dtype=np.float32)
    expected = paste_masks_in_image(torch.from_numpy(masks), torch.from_numpy(boxes), size).numpy()
    pasted = full_masks([paste(mask, box, size) for mask, box in zip(masks, boxes, strict=True)], size)
    # Where a probability is 0.5 to seven digits, the order of additions decides; a box without an extent is no box.
    assert np.delete(pasted != expected, 1, axis=0).sum() <= 1
    assert not pasted[1].any()


def test_a_box_outside_of_the_image_has_no_pixels():
    for box in ([-20, 5, -10, 9], [5, 70, 9, 80], [9, 9, 5, 5]):
        position, window = paste(np.ones((28, 28), np.float32), np.float32(box), (60, 50))
        assert not window.any()
        assert full_masks([(position, window)], (60, 50)).shape == (1, 60, 50)


def test_keypoints_are_detectron2s():
    generator = torch.Generator().manual_seed(0)
    heatmaps = torch.randn(4, 3, 56, 56, generator=generator)
    boxes = torch.tensor([[0.0, 0, 40, 60], [3.3, 4.4, 5.5, 99.9], [10, 10, 10.2, 10.4], [1, 2, 200, 150]])
    expected = heatmaps_to_keypoints(heatmaps, boxes)[:, :, [0, 1, 3]].numpy()
    found = keypoints(heatmaps.numpy(), boxes.numpy())
    assert np.abs(found - expected).max() < 1e-3
    assert keypoints(np.zeros((0, 3, 56, 56), np.float32), np.zeros((0, 4), np.float32)).shape == (0, 3, 3)


def test_the_file_to_copy_needs_numpy_and_opencv_alone(run_python):
    import maskrcnn_ext.interop.export.standalone.paste as module

    code = (
        f"import runpy, sys; runpy.run_path({module.__file__!r}); "
        "print(sorted({'torch', 'detectron2', 'maskrcnn_ext'} & {name.split('.')[0] for name in sys.modules}))"
    )
    assert run_python("-I", "-c", code).stdout.strip() == "[]"


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 14, 28]))
@settings(max_examples=30, deadline=None)
def test_masks_are_pasted_as_by_torchvision(seed, side):
    rng = np.random.default_rng(seed)
    size = (int(rng.integers(1, 90)), int(rng.integers(1, 90)))
    corners = rng.uniform(-0.1, 1.1, (6, 2, 2)) * [size[1], size[0]]
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).clip(0, [*size[::-1]] * 2)
    boxes = boxes.astype(np.float32)
    masks = rng.random((6, side, side), dtype=np.float32)
    expected = paste_as_torchvision(torch.from_numpy(masks)[:, None], torch.from_numpy(boxes), size)[:, 0].numpy()
    pasted = full_masks([paste_whole_pixels(mask, box, size) for mask, box in zip(masks, boxes, strict=True)], size)
    clear = np.abs(expected - 0.5) > 1e-4
    assert np.array_equal(pasted[clear], expected[clear] >= 0.5)
