"""MLPMaskHead: the layers against a reference."""

import pytest
import torch

from tests.helpers.mask_heads import build, features


@pytest.mark.parametrize("num_classes", [3, 1])
def test_logits_are_a_perceptron_of_the_flattened_features(num_classes):
    head = build("MLPMaskHead", num_classes=num_classes, fc_dims=[8], output_size=7).eval()
    head.predictor.weight.data.normal_()
    x = features("MLPMaskHead")
    with torch.no_grad():
        hidden = (x.flatten(1) @ head.fcs[0].weight.T + head.fcs[0].bias).clamp(min=0)
        expected = hidden @ head.predictor.weight.T + head.predictor.bias
        torch.testing.assert_close(head.layers(x), expected.view(5, num_classes, 7, 7))
        assert head.layers(x[:0]).shape == (0, num_classes, 7, 7)
