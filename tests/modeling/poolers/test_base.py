"""What all poolers have in common. Their arithmetic is tested in tests/ops."""

import copy

import pytest
import torch
from detectron2.config import instantiate
from omegaconf import ListConfig

import maskrcnn_ext
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.modeling.poolers.crop_resize import CropResizePooler
from maskrcnn_ext.modeling.poolers.deformable import DeformableROIPooler
from maskrcnn_ext.modeling.poolers.fast import FastROIPooler
from maskrcnn_ext.modeling.poolers.generic import GenericROIPooler
from maskrcnn_ext.modeling.poolers.precise import PreciseROIPooler
from maskrcnn_ext.modeling.poolers.roi_warp import ROIWarpPooler
from tests.helpers.poolers import CHANNELS, POOLERS, SCALES, STOCK, boxes_of, build, pyramid


@pytest.mark.parametrize(("pooler", "options"), POOLERS)
@pytest.mark.parametrize("counts", [(7, 7), (7, 0), (0, 0)], ids=str)
def test_forward_and_backward_with_any_boxes(pooler, options, counts):
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
def test_an_empty_batch_has_no_rois(pooler, options):
    assert build(pooler, options)(pyramid(images=0), []).shape == (0, CHANNELS, 3, 3)


@pytest.mark.parametrize(("pooler", "options"), POOLERS)
def test_double_precision_stays_double_and_agrees_with_single(pooler, options):
    module, features = build(pooler, options), pyramid(torch.float64)
    single = module([level.float() for level in features], boxes_of(7, 2))
    double = copy.deepcopy(module).double()(features, boxes_of(7, 2))
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(("pooler", "options"), POOLERS)
def test_boxes_are_pooled_from_their_own_image(pooler, options):
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
        (GenericROIPooler, {"pre": "foo"}, "None, 'conv', 'conv_per_level'"),
        (GenericROIPooler, {"post": "foo"}, "None, 'conv', 'attention', 'non_local'"),
        (GenericROIPooler, {"pooler_type": "ROIAlignRotated"}, "'ROIAlignV2', 'ROIAlign', 'ROIPool'"),
        (ROIWarpPooler, {"aggregate": "foo"}, "'average', 'max'"),
        *[
            (pooler, {"pooler_type": "ROIPool"}, "'ROIAlignV2', 'ROIAlign'")
            for pooler in (PreciseROIPooler, ROIWarpPooler, CropResizePooler, DeformableROIPooler)
        ],
    ],
)
def test_invalid_values_raise_an_error_that_lists_the_valid_ones(pooler, options, valid):
    ((name, value),) = options.items()
    with pytest.raises(InputError) as error:
        pooler(3, SCALES, **{**STOCK, **options})
    assert str(error.value) == f"{pooler.__name__} has no {name}={value!r}: set it to one of {valid}"


@pytest.mark.parametrize(
    ("pooler", "options"), [(DeformableROIPooler, {"fc_dim": 8}), (GenericROIPooler, {"pre": "conv"})]
)
def test_wrong_channels_raise_an_error_with_the_override(pooler, options):
    with pytest.raises(
        InputError, match=rf"^{pooler.__name__} was built for 256 channels and got 4: set channels=4 on .*"
    ):
        build(pooler, options)(pyramid(), boxes_of(1, 1))


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
