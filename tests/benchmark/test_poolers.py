"""RoIAlign: the results of all sides are compared before they are measured."""

import pytest

from maskrcnn_ext.benchmark.poolers import STOCK_POOLER, pooler_sides


@pytest.mark.slow
def test_every_side_pools_and_has_gradients():
    forward, backward = pooler_sides(3, 7, 2)
    assert forward.keys() == backward.keys()
    assert next(iter(forward)) == STOCK_POOLER
    for name in forward:
        assert forward[name]().shape == (3, 256, 7, 7)
        assert len(backward[name]()) == 4
