"""RoIAlign in Triton: it agrees with the reference, and compiles for GPUs once for images of all sizes."""

import json
from math import inf, nan

import pytest
import torch

from maskrcnn_ext.ops.roi_align import roi_align
from maskrcnn_ext.ops.roi_align_reference import SampleGrid
from tests.helpers.roi_pyramid import LAYOUTS, LEVELS, ROIS, SCALES, pyramid

IMAGES = [(1, 800, 1216), (2, 800, 1088), (16, 640, 640), (1, 64, 64), (3, 32, 96)]

TRITON = """
import json, sys, torch
from maskrcnn_ext.ops import roi_align_reference, roi_align_triton
from maskrcnn_ext.ops.roi_align_reference import SampleGrid
torch.manual_seed(0)
boxes, levels, bins, ratio, aligned, channels_last = json.loads(sys.argv[1])
memory_format = torch.channels_last if channels_last else torch.contiguous_format
sizes = [(2, 12, 16), (2, 2, 2)]
features = [torch.randn(n, 3, h, w).contiguous(memory_format=memory_format) for n, h, w in sizes]
grid = SampleGrid(torch.tensor(boxes), torch.tensor(levels), [0.25, 0.125], bins, ratio, aligned, channels_last)
gradient = torch.randn(len(boxes), 3, *bins)
ours = [roi_align_triton.forward(features, grid), *roi_align_triton.backward(gradient, sizes, grid)]
exact = [roi_align_reference.forward(features, grid), *roi_align_reference.backward(gradient, sizes, grid)]
assert ours[0].is_contiguous(memory_format=memory_format) and ours[0].any()
print(json.dumps(max((a - b).abs().max().item() for a, b in zip(ours, exact))))
"""
SOME = [[0, 3, 5, 40, 41], [1, -13, -9, 6, 50], [0, 30, 40, 20, 10], [1, 9, 9, 9, 9], [0, nan, 0, 9, 9]]
SOME += [[0, 0, 0, inf, 9], [2, 0, 0, 9, 9], [0, 0, 0, 9, 9]]


@pytest.mark.parametrize(
    "case",
    [
        (SOME, [0, 1, 1, 0, 0, 1, 0, 5], (2, 3), 0, True, False),
        (SOME, [1, 0, 1, 0, 0, 1, 0, -1], (1, 2), 2, False, True),
        # A thousand samples a side, of which at most 36 are computed.
        pytest.param(([[0, -5e3, -5e3, 5e3, 5e3]], [1], (1, 1), 0, False, False), marks=pytest.mark.slow),
    ],
    ids=["adaptive", "fixed", "huge"],
)
def test_tritons_kernel_agrees_in_its_interpreter(run_python, case):
    pytest.importorskip("triton")
    done = run_python("-c", TRITON, json.dumps(case), env={"TRITON_INTERPRET": "1"})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) < 1e-5


@pytest.mark.parametrize("channels_last", [True, False], ids=["channels_last", "NCHW"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_roi_align_is_compiled_once_for_all_sizes(compile_launches, dtype, channels_last):
    pytest.importorskip("triton")
    from maskrcnn_ext.ops import roi_align_triton

    layout = LAYOUTS[channels_last]
    rois, levels = torch.zeros(8, 5), torch.zeros(8, dtype=torch.int64)
    grid = SampleGrid(rois, levels, [1 / 4, 1 / 8, 1 / 16, 1 / 32], (7, 7), 0, True, channels_last)

    def launch(backward):
        for number, height, width in IMAGES:
            sizes = [(number, height // stride, width // stride) for stride in (4, 8, 16, 32)]
            maps = [torch.empty(n, 64, h, w, dtype=dtype, memory_format=layout) for n, h, w in sizes]
            if backward:
                gradient = torch.empty(8, 64, 7, 7, dtype=dtype, memory_format=layout)
                roi_align_triton.backward(gradient, sizes, grid)
            else:
                roi_align_triton.forward(maps, grid)

    for backward in (False, True):
        kernels = compile_launches(roi_align_triton, lambda backward=backward: launch(backward))
        assert len(kernels) == len(IMAGES)
        assert len({id(kernel) for kernel in kernels}) == 1
        code = kernels[0].asm
        assert code["cubin"]
        # Four channels at once.
        assert (".v4.b32" in code["ptx"] or ".v2.b32" in code["ptx"]) == channels_last


@pytest.mark.gpu
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_cuda_agrees_with_the_cpu(dtype, layout, sampling_ratio):
    results = []
    for device in ("cpu", "cuda"):
        features = [level.detach().to(device).requires_grad_() for level in pyramid(37, dtype, layout)]
        pooled = roi_align(
            features, ROIS.to(device), LEVELS.to(device), SCALES, (7, 7), sampling_ratio=sampling_ratio, aligned=True
        )
        grads = torch.autograd.grad(pooled.square().sum(), features)
        results.append([tensor.cpu() for tensor in (pooled, *grads)])
    tolerance = {} if dtype == torch.float64 else {"atol": 0.1 if dtype == torch.bfloat16 else 1e-4, "rtol": 0.02}
    torch.testing.assert_close(*results, **tolerance)
