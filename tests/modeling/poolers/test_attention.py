"""RelativePositionAttention equals a reference; the error for too few channels. The non-local block: test_generic.py."""

import numpy as np
import pytest
import torch

from maskrcnn_ext import InputError
from maskrcnn_ext.modeling.poolers.attention import RelativePositionAttention
from tests.helpers.groie_reference import attended


@pytest.mark.parametrize(("channels", "num_heads", "size"), [(16, 6, (4, 4)), (12, 2, (3, 5)), (8, 1, (1, 2))], ids=str)
def test_it_equals_the_reference(channels, num_heads, size):
    """16 channels in 6 heads leave 4 channels out, as 256 do."""
    torch.manual_seed(0)
    module = RelativePositionAttention(channels, size, num_heads=num_heads).double()
    features = torch.randn(2, channels, *size, dtype=torch.float64)
    assert torch.equal(module(features), features), "it starts as the identity"
    torch.nn.init.constant_(module.gamma, 0.7)
    torch.nn.init.normal_(module.out.bias)
    weights = {key: value.detach().numpy() for key, value in module.state_dict().items()}
    expected = [attended(bins, weights, num_heads) for bins in features.numpy()]
    np.testing.assert_allclose(module(features).detach(), expected, atol=1e-6)


def test_no_boxes():
    assert RelativePositionAttention(8, (3, 3), num_heads=2)(torch.zeros(0, 8, 3, 3)).shape == (0, 8, 3, 3)


@pytest.mark.parametrize(("channels", "num_heads", "least"), [(4, 6, 6), (3, 1, 4)])
def test_too_few_channels(channels, num_heads, least):
    message = f"attention of {num_heads} heads needs {least} or more channels, not channels={channels}: set num_heads=1"
    with pytest.raises(InputError, match=message):
        RelativePositionAttention(channels, (3, 3), num_heads=num_heads)
