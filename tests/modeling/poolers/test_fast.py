"""FastROIPooler is Detectron2's ROIPooler: results, gradients, and what boxes may be like."""

import pytest
import torch
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes
from omegaconf import ListConfig
from torch.utils._python_dispatch import TorchDispatchMode

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.modeling.poolers.fast import FastROIPooler

SCALES = [1 / 4, 1 / 8, 1 / 16, 1 / 32]
LAYOUTS = [torch.contiguous_format, torch.channels_last]
NAN, INF = float("nan"), float("inf")


def pyramid(layout=torch.contiguous_format, channels=6, images=2, scales=SCALES):
    torch.manual_seed(0)
    levels = [torch.randn(images, channels, int(160 * s), int(256 * s)) for s in scales]
    return [level.contiguous(memory_format=layout).requires_grad_() for level in levels]


def random_boxes(count, seed):
    """Boxes of all sizes, from a pixel to more than the image, some beyond its border."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.rand(count, 2, generator=generator) * torch.tensor([300, 200]) - 20
    sizes = torch.exp(torch.rand(count, 2, generator=generator) * 6)
    return Boxes(torch.cat([centres - sizes / 2, centres + sizes / 2], dim=1))


def both(output_size=7, scales=SCALES, sampling_ratio=0, pooler_type="ROIAlignV2", **options):
    return [
        pooler(output_size, scales, sampling_ratio, pooler_type, **options) for pooler in (FastROIPooler, ROIPooler)
    ]


def check(poolers, features, boxes):
    pooled = [pooler(features, boxes) for pooler in poolers]
    torch.testing.assert_close(*pooled, atol=1e-5, rtol=0)
    gradient = torch.randn(pooled[0].shape)
    grads = [torch.autograd.grad(out, features, gradient) for out in pooled]
    torch.testing.assert_close(*grads, atol=5e-5, rtol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("pooler_type", ["ROIAlign", "ROIAlignV2"])
@pytest.mark.parametrize("sampling_ratio", [0, 1, 2])
@pytest.mark.parametrize("output_size", [7, 14, 28])
def test_it_is_the_stock_pooler(output_size, sampling_ratio, pooler_type, layout):
    poolers = both(output_size, sampling_ratio=sampling_ratio, pooler_type=pooler_type)
    check(poolers, pyramid(layout), [random_boxes(12, 0), random_boxes(7, 1)])


@pytest.mark.parametrize(
    "options", [{"canonical_box_size": 56}, {"canonical_level": 3}, {"canonical_level": 4.5}], ids=str
)
def test_levels_are_chosen_as_configured(options):
    check(both(3, **options), pyramid(), [random_boxes(12, 0), random_boxes(7, 1)])


@pytest.mark.parametrize("scale", [1 / 16, 1 / 8])
def test_a_single_level(scale):
    check(both(14, [scale]), pyramid(scales=[scale]), [random_boxes(12, 0), random_boxes(7, 1)])


def test_the_lists_of_a_config_and_bins_that_are_not_square():
    (fast, _), (_, stock) = both(ListConfig([3, 5]), ListConfig([1 / 8])), both((3, 5), [1 / 8])
    check((fast, stock), pyramid(scales=[1 / 8]), [random_boxes(3, 0), random_boxes(2, 1)])
    assert both((3, 5))[0](pyramid(), [random_boxes(3, 0), random_boxes(2, 1)]).shape == (5, 6, 3, 5)


# Where one axis only is upside down, Detectron2 finds no level on a pyramid: zeros.
DEGENERATE = [
    [9, 9, 9, 9],
    [9, 9, 9, 30],
    [40, 50, 10, 20],
    [40, 20, 10, 50],
    [1e4, 1e4, 2e4, 2e4],
    [-200, -200, -50, -50],
]
DEGENERATE += [[-500, -400, 700, 600], [0, 0, 256, 160], [255.9, 159.9, 256.1, 160.1], [-700, 3, 900, 5]]


@pytest.mark.parametrize("pooler_type", ["ROIAlign", "ROIAlignV2"])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_degenerate_and_huge_boxes(sampling_ratio, pooler_type):
    poolers = both(sampling_ratio=sampling_ratio, pooler_type=pooler_type)
    check(poolers, pyramid(), [Boxes(torch.tensor(DEGENERATE, dtype=torch.float32)), random_boxes(2, 0)])


@pytest.mark.parametrize("scales", [SCALES, SCALES[2:3]], ids=len)
def test_boxes_that_are_not_numbers_pool_to_zeros(scales):
    wrong = [[NAN, 0, 9, 9], [0, 0, INF, 9], [-INF, -INF, INF, INF], [NAN] * 4, [0, 0, 1e38, 1e38]]
    features, regular = pyramid(scales=scales), random_boxes(3, 0)
    fast, _ = both(scales=scales)
    pooled = fast(features, [Boxes.cat([Boxes(torch.tensor(wrong)), regular]), Boxes(torch.zeros(0, 4))])
    assert torch.equal(pooled[: len(wrong)], torch.zeros(len(wrong), 6, 7, 7))
    assert torch.equal(pooled[len(wrong) :], fast(features, [regular, Boxes(torch.zeros(0, 4))]))


@pytest.mark.parametrize("counts", [(0, 0), (0, 3)], ids=str)
def test_images_without_boxes(counts):
    check(both(), pyramid(), [random_boxes(count, 0) for count in counts])


def test_no_image():
    assert both()[0](pyramid(images=0), []).shape == (0, 6, 7, 7)


def test_boxes_stay_exact_where_features_are_half_precision():
    """Far from the origin a bfloat16 box, which the stock pooler makes of it, is pixels off."""
    features = [torch.arange(1000.0).expand(1, 2, 4, 1000).to(torch.bfloat16)]
    boxes = [Boxes(torch.tensor([[803.0, 0, 807, 4]]))]
    pooled = FastROIPooler(1, [1.0], 0, "ROIAlignV2")(features, boxes)
    assert pooled.dtype == torch.bfloat16
    assert pooled.flatten().tolist() == [804.0, 804.0]  # 804.5, in bfloat16


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_result_and_gradients_keep_the_layout(layout):
    features = pyramid(layout)
    pooled = both()[0](features, [random_boxes(3, 0), random_boxes(2, 1)])
    assert pooled.is_contiguous(memory_format=layout)
    grads = torch.autograd.grad(pooled.square().sum(), features)
    assert all(grad.is_contiguous(memory_format=layout) for grad in grads)


def test_pooling_needs_no_synchronisation_or_indexing():
    """What would make a GPU's queue run dry: nonzero, item, and what hides them."""
    called = []

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            called.append(function.name())
            return function(*args, **(kwargs or {}))

    with Record():
        both()[0](pyramid(), [random_boxes(3, 0), random_boxes(2, 1)])
    assert called.count("maskrcnn_ext::roi_align") == 1
    assert not [name for name in called if any(word in name for word in ("nonzero", "local_scalar", "index", "repeat"))]


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.trace.*:FutureWarning")
def test_trace_and_compile_take_other_numbers_of_boxes():
    fast = both(3)[0]

    def pool(a, b, c, d, first, second):
        return fast([a, b, c, d], [Boxes(first), Boxes(second)])

    features = [level.detach() for level in pyramid()]
    few, many = [[random_boxes(n, s).tensor for s, n in enumerate(counts)] for counts in ((2, 3), (9, 4))]
    traced = torch.jit.trace(pool, (*features, *few), check_trace=False)
    compiled = torch.compile(pool, backend="aot_eager", fullgraph=True, dynamic=True)
    for boxes in (few, many):
        expected = pool(*features, *boxes)
        assert torch.equal(traced(*features, *boxes), expected)
        assert torch.equal(compiled(*features, *boxes), expected)


def test_unknown_pooler_types_raise_an_error_that_lists_the_valid_ones():
    with pytest.raises(
        InputError, match="FastROIPooler has no pooler_type='ROIPool': set it to one of 'ROIAlignV2', 'ROIAlign'"
    ):
        FastROIPooler(7, SCALES, 0, "ROIPool")
