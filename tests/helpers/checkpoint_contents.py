"""A small checkpoint, and the comparisons that tests of checkpoint files share."""

import collections

import torch


def checkpoint(seed=0):
    generator = torch.Generator().manual_seed(seed)
    weights = collections.OrderedDict((f"layer{i}.weight", torch.randn(16, 16, generator=generator)) for i in range(6))
    return {"model": weights, "iteration": 4, "trainer": {"hooks": {"a": [1, 2.5, None, "b"]}}}


def equal(one, other):
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(equal(one[key], other[key]) for key in one)
    return one == other


def one_line(error):
    text = str(error.value)
    assert "\n" not in text
    return text
