"""PatchDCTMaskHead: parity with a reference in float64, its size, the loss of the patches, and options that do not fit."""

import numpy as np
import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.utils.events import EventStorage

from maskrcnn_ext import InputError, PatchDCTMaskHead
from maskrcnn_ext.modeling.mask_heads.ground_truth import boxes_of, classes_of, target_masks
from maskrcnn_ext.modeling.mask_heads.patch_dct import confident_kinds, patch_loss
from maskrcnn_ext.ops.dct import BACKGROUND, FOREGROUND, MIXED, DCTCodec, patch_kinds, to_patches
from tests.helpers.mask_heads import build, detections, features, truth
from tests.helpers.patch_dct_reference import Reference

STAGES = [[1.0, 1.0], [0.5, 0.5, 0.8]]


def make(weights, **options):
    head = build("PatchDCTMaskHead", fc_dims=[16], stage_weights=weights, **options)
    with torch.no_grad():
        # Random weights would predict one kind everywhere.
        head.kind_predictor.weight.mul_(300)
        head.patch_predictor.weight.mul_(30)
        head.predictor.weight.mul_(20)
    return head


def pyramid():
    generator = torch.Generator().manual_seed(3)
    return {f"p{level}": torch.randn(2, 16, 64 >> level, 64 >> level, generator=generator) for level in range(2, 6)}


@pytest.mark.parametrize("weights", STAGES, ids=str)
def test_stages_losses_and_masks_equal_the_reference(weights):
    head, instances = make(weights), truth((2, 1))
    reference, classes = Reference(head), classes_of(instances)
    with torch.no_grad():
        prediction = head.predict(pyramid(), boxes_of(instances))
        stages = head.refine(prediction, classes)
        with EventStorage():
            losses = head.losses(prediction, instances)
        probs = head.probs(prediction, classes)[:, 0]
    expected = reference.stages(prediction.vectors, prediction.fine, classes.tolist(), len(weights) - 1)
    for ours, (scores, vectors) in zip(stages, expected, strict=True):
        np.testing.assert_allclose(ours.kind_logits.permute(0, 2, 3, 1), scores, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(ours.vectors, vectors, rtol=1e-4, atol=1e-4)
        kinds = set(scores.argmax(-1).flat)
        assert kinds == {0, 1, 2}, "the example is a real choice"
    targets = target_masks(instances, 112)
    coarse, patches = reference.losses(prediction.vectors, expected, targets, weights)
    assert losses["loss_mask"].item() == pytest.approx(coarse, rel=1e-5)
    assert losses["loss_mask_patch"].item() == pytest.approx(patches, rel=1e-4)
    np.testing.assert_allclose(probs, reference.final(*expected[-1], threshold=0.3), atol=1e-3)


def test_the_published_head_has_the_authors_number_of_weights():
    with torch.device("meta"):
        head = PatchDCTMaskHead(ShapeSpec(channels=256, height=14, width=14), num_classes=80, conv_dims=[256] * 5)
    convs, fcs = 4 * (256 * 256 * 9 + 256), (14 * 14 * 256 + 1) * 1024 + 1025 * 1024 + 1025 * 300
    embed, fuse = 256 * 9 + 256, 2 * (256 * 256 * 9 + 256)
    gather = (256 * 9 + 1) * 1024 + (1024 * 9 + 1) * 1024
    predictors = 1025 * 80 * (3 + 6)
    assert sum(p.numel() for p in head.parameters()) == convs + fcs + embed + fuse + gather + predictors
    assert embed + fuse + gather + predictors == pytest.approx(13.7e6, rel=0.01)


def test_refinement_trains_the_first_stage_too():
    """The decoded mask of the first stage carries its gradient."""
    head = make(STAGES[1])
    with EventStorage():
        head(pyramid(), truth((2, 1)))["loss_mask_patch"].backward()
    assert head.predictor.weight.grad.any()
    assert head.convs[0].weight.grad.any()


def test_initialisation_is_pytorchs_behind_the_first_convolutions():
    head = build("PatchDCTMaskHead", fc_dims=[64], patch_dim=32)
    for layer in (head.fcs[0], head.predictor, head.fuse[0], head.gather[0], head.gather[1], head.kind_predictor):
        bound = layer.weight[0].numel() ** -0.5
        assert 0.9 * bound < layer.weight.abs().max() <= bound
        assert layer.bias.any()


@pytest.mark.parametrize("counts", [(3, 2), (0, 0)], ids=str)
def test_several_stages_train_and_predict(counts):
    head = build("PatchDCTMaskHead", fc_dims=[16], stage_weights=STAGES[1])
    count = sum(counts)
    with EventStorage():
        losses = head(features("PatchDCTMaskHead", count), truth(counts))
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in head.parameters())
    head.eval()
    with torch.no_grad():
        found = head(features("PatchDCTMaskHead", count), detections(counts))
    assert [tuple(image.pred_masks.shape) for image in found] == [(number, 1, 112, 112) for number in counts]


def test_confident_background_and_foreground_win():
    probs = torch.tensor([[0.35, 0.05, 0.60], [0.32, 0.40, 0.28], [0.29, 0.29, 0.42], [0.10, 0.31, 0.59]])
    logits = probs.log().T[None, :, :, None]
    assert confident_kinds(logits, 0.3).flatten().tolist() == [BACKGROUND, FOREGROUND, MIXED, FOREGROUND]
    assert confident_kinds(logits, 1.0).flatten().tolist() == [MIXED, FOREGROUND, MIXED, MIXED]


def test_patch_loss_is_zero_for_the_ground_truth_and_counts_mixed_patches_only():
    masks = torch.zeros(2, 16, 16)
    masks[0, 3:12, 5:14] = 1
    patches = to_patches(masks, 8)
    kinds, vectors = patch_kinds(patches), DCTCodec(8, 6).encode(patches)
    sure = torch.nn.functional.one_hot(kinds, 3).permute(0, 3, 1, 2) * 100.0
    assert patch_loss(sure, vectors, kinds, vectors) == 0
    other = vectors + 2.0
    assert patch_loss(sure, other, kinds, vectors).item() == pytest.approx(2)
    assert patch_loss(sure, other, kinds, vectors, "smooth_l1").item() == pytest.approx(1.5)
    assert patch_loss(sure, other, kinds, vectors, "l2").item() == pytest.approx(4)
    background = torch.zeros(1, 3, 2, 2)
    background[:, 0] = 100
    none_mixed = torch.zeros(1, 2, 2, dtype=torch.int64)
    assert patch_loss(background, torch.ones(1, 2, 2, 6), none_mixed, torch.zeros(1, 2, 2, 6)) == 0


def test_the_weights_of_version_0_1_still_work():
    with pytest.warns(DeprecationWarning, match=r"set stage_weights=\[2.1, 0.5\]"):
        head = build("PatchDCTMaskHead", coefficient_weight=0.007, patch_weight=0.5)
    assert head.stage_weights == pytest.approx([2.1, 0.5])
    assert head.coefficient_weight == pytest.approx(0.007)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch_size": 9}, "patches of 9 pixels do not fill a mask of 112"),
        ({"stage_weights": [1.0]}, r"weights of two or more stages, not stage_weights=\[1.0\]: set .*=\[1.0,1.0\]"),
        ({"distance": "huber"}, "no distance 'huber': set .*distance to one of l1, smooth_l1, l2"),
    ],
    ids=str,
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(InputError, match=message):
        build("PatchDCTMaskHead", **options)
