"""What all poolers have in common, and what sets each apart. Their arithmetic is tested in tests/ops."""

import copy
import math

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from detectron2.modeling.poolers import ROIPooler, assign_boxes_to_levels
from detectron2.structures import Boxes
from omegaconf import ListConfig
from torch.nn import functional as F
from torchvision.ops import roi_align

import maskrcnn_ext
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.modeling.poolers.crop_resize import CropResizePooler
from maskrcnn_ext.modeling.poolers.deformable import DeformableROIPooler
from maskrcnn_ext.modeling.poolers.fast import FastROIPooler
from maskrcnn_ext.modeling.poolers.generic import GenericROIPooler
from maskrcnn_ext.modeling.poolers.precise import PreciseROIPooler
from maskrcnn_ext.modeling.poolers.roi_warp import ROIWarpPooler

CHANNELS = 4
SCALES = [1 / 4, 1 / 8, 1 / 16, 1 / 32]
STOCK = {"sampling_ratio": 0, "pooler_type": "ROIAlignV2"}
DEFORMABLE = {"fc_dim": 8, "channels": CHANNELS}
ALL_LAYERS = {"fuse": "attention", "pre": "conv", "post": "attention", "channels": CHANNELS}
POOLERS = [
    pytest.param(FastROIPooler, {}, id="fast"),
    pytest.param(GenericROIPooler, {}, id="generic"),
    pytest.param(GenericROIPooler, {"fuse": "max", "pre": "conv", "channels": CHANNELS}, id="generic-panet"),
    pytest.param(GenericROIPooler, {"fuse": "concat", "post": "conv", "channels": CHANNELS}, id="generic-concat"),
    pytest.param(GenericROIPooler, ALL_LAYERS, id="generic-attention"),
    pytest.param(PreciseROIPooler, {}, id="precise"),
    pytest.param(ROIWarpPooler, {}, id="warp-average"),
    pytest.param(ROIWarpPooler, {"aggregate": "max"}, id="warp-max"),
    pytest.param(CropResizePooler, {}, id="crop-resize"),
    pytest.param(DeformableROIPooler, DEFORMABLE, id="deformable-v2"),
    pytest.param(DeformableROIPooler, {"modulated": False, **DEFORMABLE}, id="deformable-v1"),
]
# One box for every level, by the canonical size of 56 pixels, and what detectors come up with on bad days.
BOXES = torch.tensor(
    [
        [3.0, 5, 18, 21],
        [3, 5, 43, 41],
        [3, 5, 73, 61],
        [3, 5, 123, 125],
        [9, 9, 9, 9],
        [9, 9, 9, 30],
        [200, -90, 260, -10],
    ]
)


def pyramid(dtype=torch.float32, images=2, channels=CHANNELS, size=128):
    torch.manual_seed(0)
    return [
        torch.randn(images, channels, int(size * s), int(size * s), dtype=dtype, requires_grad=True) for s in SCALES
    ]


def build(pooler, options, scales=SCALES, output_size=3, **stock):
    torch.manual_seed(1)
    return pooler(output_size, scales, **{**STOCK, **stock}, canonical_box_size=56, canonical_level=4, **options)


def boxes_of(*counts):
    return [Boxes(BOXES[:count]) for count in counts]


@pytest.mark.parametrize(("pooler", "options"), POOLERS)
@pytest.mark.parametrize("counts", [(7, 7), (7, 0), (0, 0)], ids=str)
def test_any_number_of_any_boxes_passes_forward_and_backward(pooler, options, counts):
    module, features = build(pooler, options), pyramid()
    pooled = module(features, boxes_of(*counts))
    assert pooled.shape == (sum(counts), CHANNELS, 3, 3)
    assert pooled.isfinite().all()
    pooled.square().sum().backward()
    for tensor in [*features, *module.parameters()]:
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
    assert all(level.grad.any() == bool(sum(counts)) for level in features)


@pytest.mark.parametrize(("pooler", "options"), POOLERS)
def test_no_image_is_no_box(pooler, options):
    assert build(pooler, options)(pyramid(images=0), []).shape == (0, CHANNELS, 3, 3)


@pytest.mark.parametrize(("pooler", "options"), POOLERS)
def test_double_precision_stays_double_and_agrees_with_single(pooler, options):
    module, features = build(pooler, options), pyramid(torch.float64)
    single = module([level.float() for level in features], boxes_of(7, 2))
    double = copy.deepcopy(module).double()(features, boxes_of(7, 2))
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(("pooler", "options"), POOLERS)
def test_images_and_boxes_do_not_mix(pooler, options):
    module, features = build(pooler, options), pyramid()
    pooled = module(features, boxes_of(2, 4))
    for image, rows in ((0, pooled[:2]), (1, pooled[2:])):
        alone = module([level[image : image + 1] for level in features], boxes_of(len(rows)))
        torch.testing.assert_close(alone, rows)


@pytest.mark.parametrize(("pooler", "options"), POOLERS)
def test_it_takes_the_lists_of_a_config(pooler, options):
    module = build(pooler, options, scales=ListConfig(SCALES), output_size=ListConfig([3, 3]))
    assert torch.equal(module(pyramid(), boxes_of(7, 1)), build(pooler, options)(pyramid(), boxes_of(7, 1)))


@pytest.mark.parametrize(("pooler", "options"), POOLERS)
def test_it_replaces_the_pooler_of_a_shipped_config(pooler, options):
    config = maskrcnn_ext.get_config("mask_rcnn_r18_fpn_scratch.py")
    config.model.roi_heads.mask_pooler._target_ = f"{pooler.__module__}.{pooler.__name__}"
    config.model.roi_heads.mask_pooler.update(options)
    module = instantiate(config.model.roi_heads.mask_pooler)
    assert type(module) is pooler
    assert module(pyramid(), boxes_of(3, 2)).shape == (5, CHANNELS, 14, 14)


@pytest.mark.parametrize(("pooler", "options"), POOLERS)
def test_a_pair_of_sizes(pooler, options):
    one = [level[:1] for level in pyramid()]
    assert build(pooler, options, SCALES[:1], (2, 5))(one[:1], boxes_of(3)).shape == (3, CHANNELS, 2, 5)
    if pooler not in (FastROIPooler, GenericROIPooler):
        with pytest.raises(
            InputError, match=rf"^{pooler.__name__} on several levels .* output_size=\[2, 5\]; set one number"
        ):
            build(pooler, options, output_size=(2, 5))
    else:
        assert build(pooler, options, output_size=(2, 5))(one, boxes_of(3)).shape == (3, CHANNELS, 2, 5)


@pytest.mark.parametrize(
    ("pooler", "options", "valid"),
    [
        (GenericROIPooler, {"fuse": "foo"}, "'sum', 'max', 'concat', 'attention'"),
        (GenericROIPooler, {"pre": "foo"}, "None, 'conv'"),
        (GenericROIPooler, {"post": "foo"}, "None, 'conv', 'attention'"),
        (GenericROIPooler, {"pooler_type": "ROIAlignRotated"}, "'ROIAlignV2', 'ROIAlign', 'ROIPool'"),
        (ROIWarpPooler, {"aggregate": "foo"}, "'average', 'max'"),
        *[
            (pooler, {"pooler_type": "ROIPool"}, "'ROIAlignV2', 'ROIAlign'")
            for pooler in (PreciseROIPooler, ROIWarpPooler, CropResizePooler, DeformableROIPooler)
        ],
    ],
)
def test_unknown_values_are_answered_with_the_valid_ones(pooler, options, valid):
    ((name, value),) = options.items()
    with pytest.raises(InputError) as error:
        pooler(3, SCALES, **{**STOCK, **options})
    assert str(error.value) == f"{pooler.__name__} has no {name}={value!r}: set it to one of {valid}"


@pytest.mark.parametrize(
    ("pooler", "options"), [(DeformableROIPooler, {"fc_dim": 8}), (GenericROIPooler, {"pre": "conv"})]
)
def test_other_channels_are_answered_with_the_override(pooler, options):
    with pytest.raises(
        InputError, match=rf"^{pooler.__name__} was built for 256 channels and got 4: set channels=4 on .*"
    ):
        build(pooler, options)(pyramid(), boxes_of(1, 1))


def pool_levels(**stock):
    """Every box pooled from every level by Detectron2, one level at a time."""
    levels = zip(SCALES, pyramid(), strict=True)
    return [build(ROIPooler, {}, [scale], **stock)([features], boxes_of(7, 2)) for scale, features in levels]


@pytest.mark.parametrize("pooler_type", ["ROIAlignV2", "ROIAlign", "ROIPool"])
@pytest.mark.parametrize("options", [{}, {"fuse": "max"}, {"fuse": "attention", "channels": CHANNELS}], ids=str)
def test_generic_of_one_level_is_the_stock_pooler(pooler_type, options):
    one_level = [pyramid()[1]]
    pooled = build(GenericROIPooler, options, SCALES[1:2], pooler_type=pooler_type)(one_level, boxes_of(7, 2))
    assert torch.equal(pooled, build(ROIPooler, {}, SCALES[1:2], pooler_type=pooler_type)(one_level, boxes_of(7, 2)))


@pytest.mark.parametrize(
    ("fuse", "expected"),
    [
        ("sum", lambda levels: levels.sum(0)),
        ("max", lambda levels: levels.amax(0)),
        ("attention", lambda levels: levels.mean(0)),
    ],
)
def test_generic_fuses_all_levels(fuse, expected):
    pooled = build(GenericROIPooler, {"fuse": fuse, "channels": CHANNELS})(pyramid(), boxes_of(7, 2))
    torch.testing.assert_close(pooled, expected(torch.stack(pool_levels())))


def test_generic_attention_learns_which_level_counts():
    module = build(GenericROIPooler, {"fuse": "attention", "channels": CHANNELS})
    with torch.no_grad():
        module.fuse.score.bias[2] = 100
    torch.testing.assert_close(module(pyramid(), boxes_of(7, 2)), pool_levels()[2])


def test_generic_concat_and_convolutions_see_the_levels_in_order():
    module = build(GenericROIPooler, {"fuse": "concat", "pre": "conv", "post": "conv", "channels": CHANNELS})
    prepared = [
        F.conv2d(pooled, conv[0].weight, conv[0].bias, padding=2).relu()
        for conv, pooled in zip(module.pre, pool_levels(), strict=True)
    ]
    fused = torch.einsum("oi,mihw->mohw", module.fuse.reduce.weight[:, :, 0, 0], torch.cat(prepared, dim=1))
    fused = fused + module.fuse.reduce.bias[:, None, None]
    expected = F.conv2d(fused, module.post[0].weight, module.post[0].bias, padding=2).relu()
    torch.testing.assert_close(module(pyramid(), boxes_of(7, 2)), expected)


def test_generic_attention_starts_as_the_identity_and_relates_bins():
    module = build(GenericROIPooler, {"post": "attention", "channels": CHANNELS})
    plain = build(GenericROIPooler, {})(pyramid(), boxes_of(7, 2))
    assert torch.equal(module(pyramid(), boxes_of(7, 2)), plain)

    torch.nn.init.normal_(module.post.out.weight)
    query, key, value = (
        torch.einsum("oi,mip->mop", weight[:, :, 0, 0], plain.flatten(2)) + bias[:, None]
        for weight, bias in zip(module.post.embed.weight.chunk(3), module.post.embed.bias.chunk(3), strict=True)
    )
    expected = torch.empty_like(plain.flatten(2))
    for at in range(9):
        affinity = torch.einsum("mo,mop->mp", query[:, :, at], key).softmax(1)
        answer = torch.einsum("mp,mop->mo", affinity, value)
        expected[:, :, at] = plain.flatten(2)[:, :, at] + answer @ module.post.out.weight[:, :, 0, 0].T
    torch.testing.assert_close(module(pyramid(), boxes_of(7, 2)).flatten(2), expected)


def test_generic_without_layers_takes_any_number_of_channels():
    module = build(GenericROIPooler, {})
    assert not list(module.parameters())
    assert module(pyramid(channels=3), boxes_of(2, 0)).shape == (2, 3, 3, 3)


def test_precise_gives_boxes_a_gradient_that_points_downhill():
    module, features = build(PreciseROIPooler, {}), pyramid()
    corners = BOXES[:4].clone().requires_grad_()

    def loss(corners):
        return module(features, [Boxes(corners), Boxes(BOXES[:0])]).square().sum()

    before = loss(corners)
    before.backward()
    assert corners.grad.abs().amin() > 0
    assert loss(corners.detach() - 1e-3 * corners.grad) < before


def test_precise_is_where_roi_align_with_many_samples_ends_up():
    inside = [Boxes(BOXES[:3] + 8)] * 2  # at the map's border the two differ
    for pooler_type in ("ROIAlignV2", "ROIAlign"):
        sampled = build(ROIPooler, {}, sampling_ratio=64, pooler_type=pooler_type)(pyramid(), inside)
        exact = build(PreciseROIPooler, {}, pooler_type=pooler_type)(pyramid(), inside)
        torch.testing.assert_close(exact, sampled, atol=1e-3, rtol=0)
        assert (
            build(ROIPooler, {}, sampling_ratio=1, pooler_type=pooler_type)(pyramid(), inside) - exact
        ).abs().max() > 0.1


def test_roi_warp_does_not_see_half_a_pixel_and_roi_align_does():
    """Mask R-CNN's misalignment (section 3): half a pixel of the feature map is lost in rounding."""
    features = [pyramid()[0]]
    # Corners at 0.3 and 0.3 + 0.5 - 0.6 of a pixel around the whole pixels 2, 3, 17 and 19.
    corners = 4 * torch.tensor([[1.7, 2.7, 16.7, 18.7]])
    moved = corners + 4 * 0.5

    def change(pooler, options, pooler_type, features=features):
        module = build(pooler, options, SCALES[:1], pooler_type=pooler_type)
        boxes = [[Boxes(place), Boxes(place)] for place in (corners, moved)]
        return (module(features, boxes[1]) - module(features, boxes[0])).abs().max().item()

    assert change(ROIWarpPooler, {}, "ROIAlignV2") == 0
    assert change(ROIWarpPooler, {"aggregate": "max"}, "ROIAlignV2") == 0
    assert change(ROIPooler, {}, "ROIPool") == 0
    assert change(ROIPooler, {}, "ROIAlignV2") > 0.01
    # On a ramp it is half a pixel's worth.
    ramp = torch.arange(32.0).expand(2, CHANNELS, 32, 32)
    assert change(ROIPooler, {}, "ROIAlignV2", [ramp]) == pytest.approx(0.5, abs=1e-4)
    assert change(ROIWarpPooler, {}, "ROIAlignV2", [ramp]) == 0


def test_roi_warp_lies_within_the_pixels_that_roi_pool_takes():
    """On a box of whole bins, the mean of samples at a pixel's middle is the mean of RoIPool's pixels; the maximum its maximum."""
    features, boxes = [pyramid()[0]], [Boxes(torch.tensor([[8.0, 8, 28, 28]]))] * 2  # pixels 2 to 7: 3 bins of 2
    stock = build(ROIPooler, {}, SCALES[:1], pooler_type="ROIPool")(features, boxes)
    warped = build(ROIWarpPooler, {"aggregate": "max"}, SCALES[:1], sampling_ratio=2)(features, boxes)
    torch.testing.assert_close(warped, stock)
    average = build(ROIWarpPooler, {}, SCALES[:1], sampling_ratio=2)(features, boxes)
    torch.testing.assert_close(average, F.avg_pool2d(features[0][:, :, 2:8, 2:8], 2))


def keras(features, boxes, image_size, bins):
    """PyramidROIAlign of Matterport's Mask R-CNN on one image, with loops; levels are rounded, boxes normalised by norm_boxes."""
    pooled = np.zeros((len(boxes), features[0].shape[0], bins, bins))
    for index, (x0, y0, x1, y1) in enumerate(boxes):
        level = round(4 + math.log2(math.sqrt((x1 - x0) * (y1 - y0)) / 56))
        plane = features[min(5, max(2, level)) - 2]
        height, width = plane.shape[1:]
        ny1, nx1, ny2, nx2 = (value / (image_size - 1) for value in (y0, x0, y1 - 1, x1 - 1))
        for i in range(bins):
            y = ny1 * (height - 1) + i * (ny2 - ny1) * (height - 1) / (bins - 1)
            for j in range(bins):
                x = nx1 * (width - 1) + j * (nx2 - nx1) * (width - 1) / (bins - 1)
                if 0 <= y <= height - 1 and 0 <= x <= width - 1:
                    top, left = int(y), int(x)
                    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
                    upper = plane[:, top, left] * (left + 1 - x) + plane[:, top, right] * (x - left)
                    lower = plane[:, bottom, left] * (left + 1 - x) + plane[:, bottom, right] * (x - left)
                    pooled[index, :, i, j] = upper * (top + 1 - y) + lower * (y - top)
    return pooled


def test_crop_resize_is_what_keras_does():
    features = pyramid(torch.float64, images=1)
    rng = np.random.default_rng(0)
    corners, sizes = rng.uniform(-20, 90, (60, 2)), 2 ** rng.uniform(2, 7.5, (60, 2))
    boxes = Boxes(torch.from_numpy(np.concatenate([corners, corners + sizes], axis=1)))
    pooled = build(CropResizePooler, {}, output_size=5)(features, [boxes])
    expected = keras([level[0].detach().numpy() for level in features], boxes.tensor.double().tolist(), 128, 5)
    # Boxes are float32, and so is their normalisation: 1e-6 of a pixel on random features.
    np.testing.assert_allclose(pooled.detach(), expected, atol=1e-5)


def test_crop_resize_rounds_to_a_level_where_detectron2_floors():
    sides = torch.tensor([35.0, 44.0, 70.0, 87.0])
    boxes = Boxes(torch.stack([sides * 0, sides * 0, sides, sides], dim=1))
    planes = [torch.full_like(level, index) for index, level in enumerate(pyramid(images=1))]
    levels = [
        build(pooler, {})(planes, [boxes])[:, 0, 1, 1].round().tolist() for pooler in (CropResizePooler, ROIPooler)
    ]
    # log2(side / 56) is -0.68, -0.35, 0.32 and 0.64.
    assert levels == [[1, 2, 2, 3], [1, 1, 2, 2]]


def test_crop_resize_takes_an_image_of_one_pixel():
    module = build(CropResizePooler, {}, [1.0])
    pooled = module([torch.full((1, 2, 1, 1), 3.0)], [Boxes(torch.tensor([[0.0, 0, 1, 1]]))])
    assert torch.equal(pooled, torch.full((1, 2, 3, 3), 3.0))


def test_crop_resize_gives_boxes_no_gradient():
    corners = BOXES[:2].clone().requires_grad_()
    build(CropResizePooler, {})(pyramid(images=1), [Boxes(corners)]).sum().backward()
    assert corners.grad is None


@pytest.mark.parametrize("modulated", [True, False])
@pytest.mark.parametrize("pooler_type", ["ROIAlignV2", "ROIAlign"])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_deformable_starts_as_the_stock_pooler(modulated, pooler_type, sampling_ratio):
    stock = {"pooler_type": pooler_type, "sampling_ratio": sampling_ratio}
    pooled = build(DeformableROIPooler, {"modulated": modulated, **DEFORMABLE}, **stock)(pyramid(), boxes_of(7, 2))
    torch.testing.assert_close(pooled, build(ROIPooler, {}, **stock)(pyramid(), boxes_of(7, 2)), atol=1e-5, rtol=0)


def test_deformable_moves_and_weights_bins_by_its_prediction():
    gamma, shift, logit = 0.2, (0.5, -1.0), 0.7
    module = build(DeformableROIPooler, {"gamma": gamma, **DEFORMABLE})
    bias = torch.tensor([*shift, logit]).repeat_interleave(9)
    with torch.no_grad():
        module.predictor[-2].bias.copy_(bias)
    pooled = module(pyramid(images=1), boxes_of(4))
    width, height = (BOXES[:4, 2:] - BOXES[:4, :2]).unbind(1)
    move = torch.stack([shift[0] * gamma * width, shift[1] * gamma * height], dim=1)
    moved = torch.cat([torch.zeros(4, 1), BOXES[:4] + move.repeat(1, 2)], dim=1)
    levels = assign_boxes_to_levels(boxes_of(4), 2, 5, 56, 4)
    assert levels.tolist() == [0, 1, 2, 3]
    for index, level in enumerate(levels):
        expected = roi_align(pyramid(images=1)[level], moved[index : index + 1], 3, SCALES[level], 0, True)
        torch.testing.assert_close(pooled[index], expected[0] * 2 * torch.tensor(logit).sigmoid(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("modulated", [True, False])
def test_deformable_learns_from_its_start(modulated):
    module, features = build(DeformableROIPooler, {"modulated": modulated, **DEFORMABLE}), pyramid()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    losses = []
    for _ in range(3):
        loss = module(features, boxes_of(4, 4)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[1] < losses[0]
    # The layers before the one that starts at zero are reached from the second step on.
    assert all(parameter.grad.any() for parameter in module.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("pooler", "options"),
    [(PreciseROIPooler, {}), (ROIWarpPooler, {}), (ROIWarpPooler, {"aggregate": "max"}), (CropResizePooler, {})],
)
def test_half_precision_maps_give_half_precision(pooler, options, dtype):
    half = [level.detach().to(dtype) for level in pyramid()]
    pooled = build(pooler, options)(half, boxes_of(7, 2))
    assert pooled.dtype == dtype
    assert torch.equal(pooled, build(pooler, options)([level.float() for level in half], boxes_of(7, 2)).to(dtype))


@pytest.mark.gpu
@pytest.mark.parametrize(("pooler", "options"), POOLERS)
@pytest.mark.parametrize("counts", [(7, 2), (0, 0)], ids=str)
def test_cuda_agrees_with_the_cpu(pooler, options, counts):
    results = []
    for device in ("cpu", "cuda"):
        module = build(pooler, options).double().to(device)
        features = [level.detach().to(device).requires_grad_() for level in pyramid(torch.float64)]
        pooled = module(features, [boxes.to(device) for boxes in boxes_of(*counts)])
        pooled.square().sum().backward()
        results.append([tensor.cpu() for tensor in (pooled, *(level.grad for level in features))])
    torch.testing.assert_close(*results)
