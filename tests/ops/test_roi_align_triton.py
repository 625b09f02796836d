"""Triton's kernels compile to machine code for GPUs, on any machine, and only once for images of many sizes."""

import pytest
import torch

from maskrcnn_ext.ops.roi_align_reference import SampleGrid

triton = pytest.importorskip("triton")

SIZES = [(1, 800, 1216), (2, 800, 1088), (16, 640, 640), (1, 64, 64), (3, 32, 96)]
LAYOUTS = {True: torch.channels_last, False: torch.contiguous_format}


class Launches:
    """Replaces a kernel and records the arguments of its launches."""

    def __init__(self):
        self.all = []

    def __getitem__(self, grid):
        return lambda *arguments, **options: self.all.append((grid, arguments, options))


class Architecture:
    """What Triton's driver says of a GPU."""

    def __init__(self, capability):
        self.capability = capability

    def get_current_target(self):
        return triton.backends.compiler.GPUTarget("cuda", self.capability, 32)

    def get_current_device(self):
        return self.capability

    def get_current_stream(self, _):
        return 0


@pytest.fixture(params=[80, 90], ids=["A100", "H100"])
def compiled(request, monkeypatch):
    """Returns a function that compiles every launch of a module's kernel."""
    # Where there is no GPU, Triton has no driver to go back to.
    monkeypatch.setattr(triton.runtime.driver, "_active", Architecture(request.param))

    def compile_all(module, launch):
        kernel, launches = module._kernel, Launches()
        with monkeypatch.context() as patch:
            patch.setattr(module, "_kernel", launches)
            launch()
        return [kernel.warmup(*arguments, grid=grid, **options) for grid, arguments, options in launches.all]

    return compile_all


@pytest.mark.parametrize("channels_last", [True, False], ids=["channels_last", "NCHW"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_roi_align_is_compiled_once_for_all_sizes(compiled, dtype, channels_last):
    from maskrcnn_ext.ops import roi_align_triton

    rois, levels = torch.zeros(8, 5), torch.zeros(8, dtype=torch.int64)
    grid = SampleGrid(rois, levels, [1 / 4, 1 / 8, 1 / 16, 1 / 32], (7, 7), 0, True, channels_last)

    def launch(backward):
        for number, height, width in SIZES:
            sizes = [(number, height // stride, width // stride) for stride in (4, 8, 16, 32)]
            maps = [torch.empty(n, 64, h, w, dtype=dtype, memory_format=LAYOUTS[channels_last]) for n, h, w in sizes]
            if backward:
                gradient = torch.empty(8, 64, 7, 7, dtype=dtype, memory_format=LAYOUTS[channels_last])
                roi_align_triton.backward(gradient, sizes, grid)
            else:
                roi_align_triton.forward(maps, grid)

    for backward in (False, True):
        kernels = compiled(roi_align_triton, lambda backward=backward: launch(backward))
        assert len(kernels) == len(SIZES)
        assert len({id(kernel) for kernel in kernels}) == 1
        code = kernels[0].asm
        assert code["cubin"]
        # Four channels at once.
        assert (".v4.b32" in code["ptx"] or ".v2.b32" in code["ptx"]) == channels_last


@pytest.mark.parametrize("number", [1, 100, 1000, 6000])
def test_suppression_is_compiled(compiled, number):
    from maskrcnn_ext.ops import sorted_nms_triton

    def launch():
        sorted_nms_triton.sorted_nms(torch.zeros(3, number, 4), torch.ones(3, number, dtype=torch.bool), 0.5)

    (kernel,) = compiled(sorted_nms_triton, launch)
    assert kernel.asm["cubin"]
