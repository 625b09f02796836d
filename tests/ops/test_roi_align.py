"""RoIAlign over a pyramid against torchvision's: results, gradients, layouts, and RoIs that are not valid."""

import functools
from math import inf, nan

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn_ext.ops import roi_align_cpu
from maskrcnn_ext.ops.roi_align import _backward, _forward, roi_align
from tests.helpers.roi_pyramid import LAYOUTS, LEVELS, ROIS, SCALES, SIZES, is_built, pool_by_torchvision, pyramid


@pytest.fixture(params=["compiled", "reference"])
def implementation(request, monkeypatch, tmp_path):
    """The kernel that the operator runs; the reference, if the library is not built."""
    if request.param == "reference":
        monkeypatch.setattr(roi_align_cpu, "_FILE", tmp_path / "none.so")
        roi_align_cpu.library.cache_clear()
    elif not is_built():
        pytest.skip("the library is not built")
    yield request.param
    monkeypatch.undo()
    roi_align_cpu.library.cache_clear()


def check(features, rois, levels, output_size, sampling_ratio, aligned):
    """Results and gradients are those of torchvision."""
    pooled = roi_align(features, rois, levels, SCALES, output_size, sampling_ratio=sampling_ratio, aligned=aligned)
    expected = pool_by_torchvision(features, rois, levels, output_size, sampling_ratio, aligned)
    torch.testing.assert_close(pooled, expected, atol=1e-5, rtol=0)
    gradient = torch.randn(pooled.shape)
    grads = [torch.autograd.grad(out, features, gradient, allow_unused=True) for out in (pooled, expected)]
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, torch.zeros_like(ours) if theirs is None else theirs, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2, 3])
@pytest.mark.parametrize(("channels", "output_size"), [(5, (7, 7)), (70, (2, 3)), (1, (3, 20))])
def test_it_is_torchvision_on_every_level(implementation, channels, output_size, sampling_ratio, aligned, layout):
    check(pyramid(channels, layout=layout), ROIS, LEVELS, output_size, sampling_ratio, aligned)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_box_on_any_map_is_torchvisions(data):
    size = data.draw(st.tuples(st.integers(1, 2), st.integers(1, 20), st.integers(1, 40)))
    features = pyramid(data.draw(st.integers(1, 20)), layout=data.draw(st.sampled_from(LAYOUTS)), sizes=[size] * 2)
    coordinate = st.one_of(st.floats(-60, 120, width=32), st.integers(-60, 120).map(float))
    boxes = data.draw(st.lists(st.lists(coordinate, min_size=4, max_size=4), min_size=1, max_size=5))
    rois = torch.tensor([[data.draw(st.integers(0, size[0] - 1)), *box] for box in boxes])
    levels = torch.tensor([data.draw(st.integers(0, 1)) for _ in boxes])
    output_size = data.draw(st.tuples(st.integers(1, 20), st.integers(1, 20)))
    sampling_ratio = data.draw(st.integers(0, 3))
    if sampling_ratio == 0:  # torchvision cannot allocate a negative number of samples
        rois = torch.cat([rois[:, :1], rois[:, 1:].view(-1, 2, 2).sort(dim=1).values.flatten(1)], dim=1)
    check(features, rois, levels, output_size, sampling_ratio, data.draw(st.booleans()))


def test_a_bin_of_a_ramp_is_its_centre(implementation):
    ramp = torch.arange(40.0).expand(1, 1, 30, 40)
    pooled = roi_align(
        [ramp], torch.tensor([[0.0, 8, 8, 24, 20]]), torch.tensor([0]), [1.0], (2, 4), sampling_ratio=0, aligned=True
    )
    torch.testing.assert_close(pooled[0, 0], torch.tensor([9.5, 13.5, 17.5, 21.5]).expand(2, 4))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_invalid_boxes_pool_to_zeros_and_have_no_gradient(implementation, sampling_ratio, layout):
    wrong = [[0, nan, 0, 5, 5], [0, 0, 0, inf, 5], [0, -inf, 0, inf, 5], [0, 0, 0, 2**24, 5], [0, -1e30, 0, 1e30, 9]]
    wrong += [[2, 0, 0, 9, 9], [-1, 0, 0, 9, 9], [nan, 0, 0, 9, 9], [inf, 0, 0, 9, 9], [1e30, 0, 0, 9, 9]]
    wrong += [[0, 0, 0, 9, 9]] * 4
    levels = torch.tensor([0] * 10 + [-1, 2, torch.iinfo(torch.int64).min, torch.iinfo(torch.int64).max])
    features = pyramid(layout=layout)
    options = {"sampling_ratio": sampling_ratio, "aligned": True}
    pooled = roi_align(features, torch.tensor(wrong), levels, SCALES, (3, 3), **options)
    assert torch.equal(pooled, torch.zeros(len(wrong), 5, 3, 3))
    assert not any(grad.any() for grad in torch.autograd.grad(pooled.sum(), features))

    # Nor do those beside them suffer.
    alone = roi_align(features, ROIS, LEVELS, SCALES, (3, 3), **options)
    mixed = torch.cat([torch.tensor(wrong), ROIS]), torch.cat([levels, LEVELS])
    assert torch.equal(roi_align(features, *mixed, SCALES, (3, 3), **options)[len(wrong) :], alone)


def test_a_huge_box_takes_no_longer_and_is_the_mean_of_its_samples(implementation):
    """A bin of 4 million pixels has 4 million samples a side, of which a map of ones counts those within it."""
    ones = [torch.ones(1, 1, 30, 40)]
    rois = torch.tensor([[0.0, -2e6, -2e6, 2e6, 2e6], [0.0, 0, 0, 1.6e7, 1.6e7]])
    pooled = roi_align(ones, rois, torch.tensor([0, 0]), [1.0], (1, 1), sampling_ratio=0, aligned=True)
    size = torch.tensor([4e6, 1.6e7])
    torch.testing.assert_close(pooled.flatten(), (31 / size) * (41 / size), rtol=0.1, atol=0)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_no_roi_no_channel_no_image(implementation, layout):
    options = {"sampling_ratio": 0, "aligned": True}
    features = pyramid(layout=layout)
    pooled = roi_align(features, ROIS[:0], LEVELS[:0], SCALES, (3, 4), **options)
    assert pooled.shape == (0, 5, 3, 4)
    assert not any(grad.any() for grad in torch.autograd.grad(pooled.sum(), features))
    assert roi_align([torch.ones(2, 0, 9, 9)], ROIS, LEVELS * 0, [1.0], (3, 4), **options).shape == (8, 0, 3, 4)
    assert roi_align([torch.ones(0, 2, 9, 9)], ROIS[:0], LEVELS[:0], [1.0], (3, 4), **options).shape == (0, 2, 3, 4)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_single_and_rounded_once(implementation, dtype, layout):
    half = pyramid(19, dtype, layout)
    single = [level.detach().float().requires_grad_() for level in half]
    call = functools.partial(
        roi_align, rois=ROIS, levels=LEVELS, scales=SCALES, output_size=(3, 5), sampling_ratio=0, aligned=True
    )
    pooled = [call(half), call(single)]
    assert pooled[0].dtype == dtype
    assert torch.equal(pooled[0], pooled[1].to(dtype))
    gradient = torch.randn(pooled[0].shape).to(dtype)
    grads = [
        torch.autograd.grad(out, features, gradient.to(out.dtype))
        for out, features in zip(pooled, [half, single], strict=True)
    ]
    for ours, exact in zip(*grads, strict=True):
        assert torch.equal(ours, exact.to(dtype))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_half_precision_number_is_read_and_written(implementation, dtype, layout):
    """A sample on a pixel's centre is the pixel: infinities, subnormal numbers and all."""
    numbers = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype)
    features = [numbers.view(1, -1, 1, 1).repeat(1, 1, 2, 2).contiguous(memory_format=layout)]
    roi = torch.tensor([[0.0, 1, 1, 2, 2]])
    pooled = roi_align(features, roi, torch.tensor([0]), [1.0], (1, 1), sampling_ratio=1, aligned=True).flatten()
    torch.testing.assert_close(pooled, numbers, atol=0, rtol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_results_are_rounded_as_torch_rounds(implementation, dtype):
    """Means of two numbers of all magnitudes: ties, overflow to infinity and subnormal results among them."""
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(-(2**15), 2**15, (1, 20000, 1, 2), generator=generator, dtype=torch.int16)
    numbers = bits.view(dtype).nan_to_num(0)
    roi = torch.tensor([[0.0, 0.5, 0, 1.5, 1]])
    pooled = roi_align([numbers], roi, torch.tensor([0]), [1.0], (1, 1), sampling_ratio=1, aligned=True)
    assert torch.equal(pooled, (numbers.float() / 2).sum(3, keepdim=True).to(dtype))


@pytest.mark.parametrize("cut", [(slice(None), slice(2, None)), (slice(1, None),), (..., slice(3, 20), slice(4, 30))])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_views_are_read_without_a_copy(implementation, layout, cut):
    views = [level.detach()[cut] for level in pyramid(7, layout=layout)[:1]]
    rois = ROIS.clone()
    rois[:, 0] = 0
    arguments = rois, LEVELS * 0, SCALES[:1], (3, 3)
    pooled = roi_align(views, *arguments, sampling_ratio=0, aligned=True)
    copies = [view.clone(memory_format=torch.contiguous_format) for view in views]
    torch.testing.assert_close(pooled, roi_align(copies, *arguments, sampling_ratio=0, aligned=True))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_memory_format_is_kept_in_both_passes(implementation, layout):
    features = pyramid(layout=layout)
    features[1] = features[1].detach().contiguous().requires_grad_()  # the first decides
    pooled = roi_align(features, ROIS, LEVELS, SCALES, (3, 3), sampling_ratio=0, aligned=True)
    assert pooled.is_contiguous(memory_format=layout)
    grads = torch.autograd.grad(pooled.square().sum(), features)
    assert all(grad.is_contiguous(memory_format=layout) for grad in grads)
    torch.testing.assert_close(pooled, pool_by_torchvision(features, ROIS, LEVELS, (3, 3), 0, True), atol=1e-5, rtol=0)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("channels", "rois"), [(5, 8), (1, 8), (5, 0)])
def test_torch_accepts_the_operators(channels, rois, channels_last):
    features = pyramid(channels, layout=LAYOUTS[channels_last])
    grid = (ROIS[:rois], LEVELS[:rois], SCALES, [3, 4], 0, True, channels_last)
    torch.library.opcheck(_forward, (features, *grid))
    sizes = [number for size in SIZES for number in size]
    torch.library.opcheck(_backward, (torch.randn(rois, channels, 3, 4), sizes, *grid))


def pool(first, second, rois, levels):
    return roi_align([first.sin(), second], rois, levels, SCALES, (3, 3), sampling_ratio=0, aligned=True)


def test_compile_and_export_pass_through():
    features, parameters = pyramid(), torch.export.Dim("rois", min=0, max=100)
    expected = pool(*features, ROIS, LEVELS)
    compiled = torch.compile(pool, backend="aot_eager", fullgraph=True, dynamic=True)(*features, ROIS, LEVELS)
    torch.testing.assert_close(compiled, expected)
    grads = [torch.autograd.grad(out.square().sum(), features) for out in (compiled, expected)]
    torch.testing.assert_close(*grads)

    class Module(torch.nn.Module):
        forward = staticmethod(pool)

    exported = torch.export.export(
        Module(),
        (*(level.detach() for level in features), ROIS, LEVELS),
        dynamic_shapes=(None, None, {0: parameters}, {0: parameters}),
    )
    torch.testing.assert_close(exported.module()(*features, ROIS[:3], LEVELS[:3]), expected[:3])
    assert torch.ops.maskrcnn_ext.roi_align.default in [node.target for node in exported.graph.nodes]


def test_a_second_derivative_is_refused():
    features = pyramid()
    pooled = roi_align(features, ROIS, LEVELS, SCALES, (3, 3), sampling_ratio=0, aligned=True)
    (grad, _) = torch.autograd.grad(pooled.square().sum(), features, create_graph=True)
    with pytest.raises(RuntimeError, match="roi_align_backward"):
        grad.sum().backward()


@pytest.mark.parametrize(
    "change",
    [
        {"features": [torch.zeros(2, 5, 9, 9), torch.zeros(2, 6, 9, 9)]},
        {"features": [torch.zeros(2, 5, 9, 9), torch.zeros(2, 5, 9, 9).double()]},
        {"scales": [0.5]},
        {"rois": ROIS[:, 1:]},
        {"levels": LEVELS[1:]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_mismatched_arguments_raise(change):
    arguments = {"features": pyramid(), "rois": ROIS, "levels": LEVELS, "scales": SCALES, "output_size": (3, 3)}
    with pytest.raises(ValueError, match=r"must have the same|expected one scale"):
        roi_align(**{**arguments, **change}, sampling_ratio=0, aligned=True)


def test_an_unsupported_torch_is_reported(run_python):
    done = run_python("-c", "import torch; del torch.library.custom_op; import maskrcnn_ext.ops.roi_align")
    assert "InputError: this RoIAlign needs torch 2.4 or newer" in done.stderr
