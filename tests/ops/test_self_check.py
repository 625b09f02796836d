"""Kernels are compared once, on their first real input, and a wrong one is never used again."""

import logging
from types import SimpleNamespace

import pytest
import torch

from maskrcnn_ext.ops import roi_align, roi_align_reference
from maskrcnn_ext.ops.self_check import SelfChecks, find_difference


class Kernel:
    """Counts its calls."""

    def __init__(self, function):
        self.function, self.calls = function, 0

    def __call__(self):
        self.calls += 1
        return self.function()


def broken():
    raise ValueError("no such instruction\nand more")


RIGHT = torch.arange(1.0, 101.0)


def test_a_right_kernel_is_compared_once(caplog):
    checks, kernel, plain = SelfChecks(), Kernel(lambda: [RIGHT + 1e-3]), Kernel(lambda: [RIGHT])
    for _ in range(3):
        (found,) = checks.run("sum", kernel, plain)
        assert torch.equal(found, RIGHT + 1e-3)
    assert (kernel.calls, plain.calls) == (3, 1)
    checks.run("sum", kernel, plain, variant=torch.bfloat16)
    assert plain.calls == 2
    assert not caplog.records


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda: [RIGHT.flip(0)], "100 % of the values differ, by up to 99 (the largest is 100)"),
        (lambda: [torch.full((100,), torch.nan)], "100 % of the values differ, by up to inf"),
        (lambda: [RIGHT[:50]], "(50,) of torch.float32, not (100,) of torch.float32"),
        (lambda: [RIGHT, RIGHT], "2 results, not 1"),
        (broken, "ValueError: no such instruction"),
    ],
)
def test_a_wrong_kernel_is_replaced(function, reason, caplog):
    checks, kernel, plain = SelfChecks(), Kernel(function), Kernel(lambda: [RIGHT])
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert torch.equal(checks.run("sum", kernel, plain)[0], RIGHT)
    assert (kernel.calls, plain.calls) == (1, 3)
    (record,) = caplog.records
    assert record.message.startswith(f"sum on the GPU: {reason}")
    assert "\n" not in record.message


def test_an_input_that_says_nothing_is_no_check():
    checks, plain = SelfChecks(), Kernel(lambda: [RIGHT])
    checks.run("sum", lambda: [RIGHT[:0]], plain, is_real=False)
    assert plain.calls == 0
    assert torch.equal(checks.run("sum", lambda: [RIGHT[:0]], plain)[0], RIGHT)


def test_what_rounding_explains_is_no_difference():
    infinite = torch.tensor([-torch.inf, torch.nan, 3.0])
    assert find_difference([infinite], [infinite.clone()]) is None
    assert find_difference([infinite], [torch.tensor([0.0, torch.nan, 3.0])]) is not None
    assert find_difference([RIGHT.bfloat16() + 1], [RIGHT.bfloat16()]) is None
    assert find_difference([torch.zeros(0)], [torch.zeros(0)]) is None
    kept = torch.zeros(1000, dtype=torch.bool)
    other = kept.clone()
    other[:5] = True
    assert find_difference([kept], [other]) is not None
    assert find_difference([kept], [other], others=0.01) is None


@pytest.mark.parametrize("wrong", ["forward", "backward", ""])
def test_a_wrong_roi_align_is_found_in_its_first_step(wrong, monkeypatch, caplog):
    torch.manual_seed(0)

    def plant(name):
        right = getattr(roi_align_reference, name)
        if name != wrong:
            return right

        def shifted(*arguments):
            results = right(*arguments)
            return [value.roll(1, -1) for value in results] if isinstance(results, list) else results.roll(1, -1)

        return shifted

    planted = SimpleNamespace(forward=plant("forward"), backward=plant("backward"))
    monkeypatch.setattr(roi_align, "_compiled", lambda *_: planted)
    monkeypatch.setattr(roi_align, "_checks", SelfChecks())
    rois = torch.tensor([[0, 2.0, 3.0, 20.0, 25.0], [0, 5.0, 1.0, 30.0, 9.0]])

    def step(count):
        maps = [torch.rand(1, 4, 16, 16, requires_grad=True)]
        pooled = roi_align.roi_align(
            maps, rois[:count], torch.zeros(count, dtype=torch.int64), [0.5], (3, 3), sampling_ratio=2, aligned=True
        )
        grid = roi_align_reference.SampleGrid(
            rois[:count], torch.zeros(count, dtype=torch.int64), [0.5], [3, 3], 2, True, False
        )
        torch.testing.assert_close(pooled, roi_align_reference.forward([maps[0].detach()], grid))
        pooled.square().sum().backward()
        (expected,) = roi_align_reference.backward(2 * pooled.detach(), [(1, 16, 16)], grid)
        torch.testing.assert_close(maps[0].grad, expected)

    with caplog.at_level(logging.WARNING):
        step(0)  # logs nothing
        step(2)
        step(2)
    expected = {"forward": ["RoIAlign on the GPU: "], "backward": ["RoIAlign's backward pass on the GPU: "], "": []}
    assert [record.message.partition("GPU: ")[0] + "GPU: " for record in caplog.records] == expected[wrong]
