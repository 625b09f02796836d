"""The compiled RoIAlign: any number of threads, boxes of any extent, and a library that does not load."""

import pytest
import torch

from maskrcnn_ext.ops import roi_align_cpu, roi_align_reference
from maskrcnn_ext.ops.roi_align import roi_align
from maskrcnn_ext.ops.roi_align_reference import SampleGrid
from tests.helpers.roi_pyramid import LAYOUTS, LEVELS, ROIS, SCALES, is_built, pyramid


@pytest.mark.skipif(not is_built(), reason="the library is not built")
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_results_do_not_depend_on_the_number_of_threads(layout):
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            features = pyramid(37, layout=layout)
            pooled = roi_align(features, ROIS, LEVELS, SCALES, (7, 7), sampling_ratio=0, aligned=True)
            results.append([pooled, *torch.autograd.grad(pooled.square().sum(), features)])
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, *results))


@pytest.mark.skipif(not is_built(), reason="the library is not built")
def test_compiled_and_reference_agree_beyond_torchvisions_reach():
    """Elongated boxes that torchvision takes minutes for."""
    rois = torch.tensor([[0, -1e5, 3.0, 1e5, 9.0], [1, 5.0, -3e6, 7.0, 1e6], [0, 10.0, 10.0, 1e6, 1e6]])
    features = [level.detach() for level in pyramid()]
    for channels_last in (False, True):
        grid = SampleGrid(rois, torch.tensor([0, 1, 0]), SCALES, (7, 7), 0, True, channels_last)
        levels = [level.contiguous(memory_format=LAYOUTS[channels_last]) for level in features]
        compiled, reference = roi_align_cpu.forward(levels, grid), roi_align_reference.forward(levels, grid)
        torch.testing.assert_close(compiled, reference, atol=1e-7, rtol=1e-4)


@pytest.mark.skipif(not is_built(), reason="the library is not built")
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_level_without_pixels_pools_to_zeros(memory_format):
    levels = [torch.ones(1, 16, height, 4).contiguous(memory_format=memory_format) for height in (4, 0)]
    rois = torch.tensor([[0, -2.0, -2, 0, 0]] * 2)
    pooled = roi_align(levels, rois, torch.tensor([0, 1]), [1.0, 1.0], (2, 2), sampling_ratio=1, aligned=False)
    assert pooled[0].any()
    assert not pooled[1].any()


@pytest.mark.parametrize("content", [None, b"\x7fELF no library"])
def test_a_library_that_does_not_load_raises_the_reason(monkeypatch, tmp_path, content):
    file = tmp_path / "_roi_align.so"
    if content:
        file.write_bytes(content)
    monkeypatch.setattr(roi_align_cpu, "_FILE", file)
    roi_align_cpu.library.cache_clear()
    try:
        with pytest.raises(OSError, match="not built" if content is None else str(file)):
            roi_align_cpu.library()
    finally:
        monkeypatch.undo()
        roi_align_cpu.library.cache_clear()
