import re

import numpy as np
import pytest
import torch
from detectron2.layers.mask_ops import paste_masks_in_image
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_util

from maskrcnn_ext.ops import mask_paste
from maskrcnn_ext.ops.mask_paste import paste_to_rle
from maskrcnn_ext.ops.rle_masks import RLEMasks


def stock(masks, boxes, size, threshold=0.5):
    dense = paste_masks_in_image(masks, boxes, size, threshold)
    return [mask_util.encode(np.asfortranarray(mask.numpy().view(np.uint8))) for mask in dense]


def blobs(count, side, seed=0):
    coarse = torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")[:, 0].clamp(0, 1)


def counts_of(rle):
    """The runs of a compressed RLE, read off the decoded pixels."""
    flat = mask_util.decode(rle).ravel(order="F")
    return np.diff(np.flatnonzero(np.diff(flat, prepend=0)), prepend=0).tolist()


@st.composite
def boxes_near(draw, size):
    """Boxes that Detectron2 can paste: at least a part of the pixel next to them is inside the image."""
    ends = []
    for length in reversed(size):
        low = draw(st.floats(-2.0 * length, length, width=32))
        extent = draw(st.one_of(st.just(0.0), st.floats(0, 1, width=32), st.floats(0, 4.0 * length, width=32)))
        ends.append((low, max(low + extent, 0.0)))
    return [ends[0][0], ends[1][0], ends[0][1], ends[1][1]]


@settings(max_examples=150, deadline=None)
@given(data=st.data(), size=st.tuples(st.integers(1, 40), st.integers(1, 40)), seed=st.integers(0, 2**16))
def test_rles_are_the_bytes_of_detectron2_and_pycocotools(data, size, seed):
    boxes = data.draw(st.lists(boxes_near(size), min_size=1, max_size=4))
    side = data.draw(st.sampled_from([1, 2, 7, 28]))
    levels = data.draw(st.sampled_from([1, 2, 4, 1000]))  # few levels: many values lie on the threshold
    generator = torch.Generator().manual_seed(seed)
    masks = torch.randint(0, levels + 1, (len(boxes), side, side), generator=generator) / levels
    threshold = data.draw(st.sampled_from([0.0, 0.25, 0.5, 0.7, 1.0, 1.5]))
    boxes = torch.tensor(boxes)
    assert paste_to_rle(masks, boxes, size, threshold) == stock(masks, boxes, size, threshold)


@pytest.mark.parametrize("side", [28, 56, 112, 128, 224])
def test_large_windows_that_are_sampled_in_strips_equal_stock(side):
    size = (700, 901)
    boxes = torch.tensor(
        [
            [0.0, 0.0, 901.0, 700.0],  # the image
            [-300.5, -200.25, 1500.75, 1100.0],  # larger than the image
            [33.3, -50.1, 870.2, 690.9],
            [100.0, 0.0, 800.0, 700.0],  # all rows
            [0.0, 120.6, 901.0, 580.4],  # all columns
            [899.6, 698.7, 2000.0, 2000.0],  # the last pixels
            [250.2, 300.7, 250.9, 301.1],  # within one pixel
        ]
    )
    masks = blobs(len(boxes), side)
    assert paste_to_rle(masks, boxes, size) == stock(masks, boxes, size)
    masks[:] = 1
    assert paste_to_rle(masks, boxes, size) == stock(masks, boxes, size)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.bool, torch.uint8])
def test_masks_of_other_types_equal_stock(dtype):
    masks = blobs(6, 28).to(dtype) if dtype.is_floating_point else (blobs(6, 28) > 0.5).to(dtype)
    boxes = torch.tensor([[20.0, 10.0, 180.5, 140.2]]).repeat(6, 1) + torch.arange(6)[:, None] * 1.37
    assert paste_to_rle(masks, boxes, (160, 200)) == stock(masks, boxes, (160, 200))


def test_views_and_tensors_with_gradients_are_accepted():
    masks = blobs(3, 28).transpose(1, 2).requires_grad_()
    boxes = torch.tensor([[3.0, 4.0, 30.0, 25.0]]).expand(3, 4)
    assert paste_to_rle(masks, boxes, (40, 50)) == stock(masks.detach(), boxes, (40, 50))


def test_a_run_continues_over_full_columns():
    box = torch.tensor([[3.0, -50.0, 7.0, 60.0]])
    (rle,) = paste_to_rle(torch.ones(1, 2, 2), box, (10, 20))
    assert counts_of(rle) == [30, 40]


@pytest.mark.parametrize(
    "box",
    [
        [500.0, 5.0, 520.0, 20.0],
        [5.0, 500.0, 20.0, 520.0],
        [-90.0, 5.0, -40.0, 20.0],
        [5.0, -90.0, 20.0, -40.0],
        [1e12, 1e12, 2e12, 2e12],
        [20.0, 20.0, 5.0, 5.0],
        [float("nan")] * 4,
        [5.0, 5.0, 20.0, float("nan")],
        [float("inf"), 5.0, float("inf"), 20.0],
    ],
)
def test_boxes_outside_the_image_or_without_area_have_empty_masks(box):
    """Detectron2 raises or runs out of memory for them."""
    boxes = torch.tensor([box, [5.0, 5.0, 20.0, 20.0]])
    masks = torch.ones(2, 28, 28)
    empty, other = paste_to_rle(masks, boxes, (40, 50))
    assert empty == mask_util.encode(np.zeros((40, 50), np.uint8, order="F"))
    assert [other] == stock(masks[1:], boxes[1:], (40, 50))


def test_the_largest_image_takes_no_more_than_its_box():
    (rle,) = paste_to_rle(torch.ones(1, 28, 28), torch.tensor([[65000.0, 65000.0, 65004.0, 65006.0]]), (65536, 65535))
    assert mask_util.area(rle) == 24
    assert mask_util.toBbox(rle).tolist() == [65000, 65000, 4, 6]


def test_no_masks_are_no_rles():
    assert paste_to_rle(torch.zeros(0, 28, 28), torch.zeros(0, 4), (40, 50)) == []


def test_dense_masks_are_the_stock_ones():
    masks, boxes = blobs(3, 28), torch.tensor([[1.0, 2.0, 30.0, 39.0], [-5.0, 3.0, 60.0, 20.0], [7.0, 7.0, 7.5, 7.5]])
    dense = RLEMasks(paste_to_rle(masks, boxes, (40, 50)), (40, 50)).to_dense()
    assert dense.dtype == torch.bool
    assert torch.equal(dense, paste_masks_in_image(masks, boxes, (40, 50)))


def test_mismatched_arguments_raise():
    with pytest.raises(ValueError, match=r"boxes \(R, 4\): \(2, 28, 28\), \(3, 4\)"):
        paste_to_rle(torch.ones(2, 28, 28), torch.ones(3, 4), (40, 50))
    for shape in [(2, 1, 28, 28), (2, 28, 14)]:
        with pytest.raises(ValueError, match=re.escape(str(shape))):
            paste_to_rle(torch.ones(shape), torch.ones(2, 4), (40, 50))
    for threshold in (-0.5, float("nan")):
        with pytest.raises(ValueError, match="threshold must not be negative"):
            paste_to_rle(torch.ones(2, 28, 28), torch.ones(2, 4), (40, 50), threshold)
    with pytest.raises(ValueError, match="cannot hold an image of 65536 x 65536 pixels"):
        paste_to_rle(torch.ones(1, 28, 28), torch.ones(1, 4), (65536, 65536))


# The kernel's own record of the highest resident set, which has no gaps and starts at 0 with each program.
MEMORY = """
import torch
from pathlib import Path
from maskrcnn_ext.ops.mask_paste import paste_to_rle

def kilobytes(key):
    return next(int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith(key))

masks = torch.rand(60, 28, 28)
boxes = torch.rand(60, 2) * 2400
boxes = torch.cat([boxes, boxes + 600], dim=1)
boxes[0] = torch.tensor([0.0, 0.0, 3000.0, 3000.0])
paste_to_rle(masks[:1], boxes[1:2], (3000, 3000))
before = kilobytes("VmRSS")
rles = paste_to_rle(masks, boxes, (3000, 3000))
print(kilobytes("VmHWM") - before)
"""


def test_sixty_masks_of_nine_megapixels_need_less_than_30_megabytes(run_python):
    """Stock pasting needs 540, and one array of the image's size 9 at least."""
    assert int(run_python("-c", MEMORY).stdout) < 30_000


def test_many_masks_of_a_wide_image_are_encoded_part_by_part(monkeypatch):
    masks, boxes = blobs(5, 28), torch.tensor([[1.0, 2.0, 300.0, 3.0]]).repeat(5, 1)
    expected = paste_to_rle(masks, boxes, (4, 400))
    monkeypatch.setattr(mask_paste, "_MOST_EDGES", 2 * 8 * 400 + 2)
    assert paste_to_rle(masks, boxes, (4, 400)) == expected


@pytest.mark.parametrize("threads", [1, 3])
def test_noise_has_more_runs_than_the_compiled_code_has_room_for(threads):
    masks = torch.rand(3, 96, 96, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[0.0, 0.0, 24.0, 300.0], [3.2, 4.1, 19.9, 280.0], [0.0, 0.0, 5.0, 5.0]])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        assert paste_to_rle(masks, boxes, (300, 24)) == stock(masks, boxes, (300, 24))
    finally:
        torch.set_num_threads(before)
