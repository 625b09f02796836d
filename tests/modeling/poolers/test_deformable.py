"""DeformableROIPooler: its start, its offsets and weights, and learning."""

import numpy as np
import pytest
import torch
from detectron2.modeling.poolers import ROIPooler, assign_boxes_to_levels
from torchvision.ops import roi_align

from maskrcnn_ext.modeling.poolers.deformable import DeformableROIPooler
from tests.helpers.poolers import BOXES, DEFORMABLE, SCALES, boxes_of, build, pyramid


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


def test_own_mask_branch_equals_a_reference():
    """Layers as in the code of v2's authors, in NumPy, and each bin pooled by itself from a moved box."""
    options = {"mask_branch": True, "max_modulation": 1.0, "gamma": 0.3, **DEFORMABLE}
    module = build(DeformableROIPooler, options).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    features = [level.detach() for level in pyramid(torch.float64, images=1)]
    pooled = build(ROIPooler, {})(features, boxes_of(4)).numpy().reshape(4, -1)
    weights = {name: value.numpy() for name, value in module.state_dict().items()}

    def dense(branch, layer, x):
        return x @ weights[f"{branch}.{layer}.weight"].T + weights[f"{branch}.{layer}.bias"]

    hidden = dense("predictor", 3, dense("predictor", 1, pooled).clip(0)).clip(0)
    offsets = 0.3 * dense("predictor", 5, hidden).reshape(4, 2, 3, 3)
    logits = dense("mask_predictor", 3, dense("mask_predictor", 1, pooled).clip(0)).reshape(4, 3, 3)
    found = module(features, boxes_of(4)).detach().numpy()
    for roi, row, column in np.ndindex(4, 3, 3):
        box = BOXES[roi].double().numpy()
        move = offsets[roi, :, row, column] * (box[2:] - box[:2])
        moved = torch.from_numpy(np.array([[0, *(box + np.tile(move, 2))]]))
        sampled = roi_align(features[roi], moved, 3, SCALES[roi], 0, True)[0, :, row, column].numpy()
        expected = sampled / (1 + np.exp(-logits[roi, row, column]))
        np.testing.assert_allclose(found[roi, :, row, column], expected, atol=1e-6)


def test_own_mask_branch_has_the_number_of_weights_of_its_authors_code():
    with torch.device("meta"):
        module = DeformableROIPooler(7, SCALES, 2, "ROIAlignV2", mask_branch=True)
    first, bins = 256 * 49 * 1024 + 1024, 49
    offsets, modulation = first + 1025 * 1024 + 1025 * 2 * bins, first + 1025 * bins
    assert sum(p.numel() for p in module.parameters()) == offsets + modulation
