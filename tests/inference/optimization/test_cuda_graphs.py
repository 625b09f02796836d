"""CUDA graphs: recorded once for each combination of shapes and settings, and replayed."""

import logging

import pytest
import torch

from maskrcnn_ext.inference.optimization.cuda_graphs import CUDAGraphs


def sums(x, y):
    return x + y, (x * y).sum(dim=0)


def test_without_a_gpu_the_function_is_called():
    inputs = torch.rand(3, 4), torch.rand(3, 4)
    graphs = CUDAGraphs(sums)
    for _ in range(2):
        assert all(torch.equal(one, other) for one, other in zip(graphs(*inputs), sums(*inputs), strict=True))


@pytest.mark.gpu
def test_replays_use_the_current_inputs():
    calls = []

    def counted(x, y):
        calls.append(x.shape)
        return sums(x, y)

    graphs, kept = CUDAGraphs(counted, max_graphs=2), []
    for size in (3, 4, 3, 5, 3, 4):
        inputs = torch.rand(size, 4, device="cuda"), torch.rand(size, 4, device="cuda")
        with torch.inference_mode(size % 2 == 0):
            kept.append((graphs(*inputs), sums(*inputs)))
    for results, expected in kept:  # not overwritten by later ones
        for one, other in zip(results, expected, strict=True):
            torch.testing.assert_close(one, other)
    # Two runs, a recording and a comparison each; 4 was the one that was used longest ago when 5 came, and is recorded again.
    assert [shape[0] for shape in calls] == [3] * 4 + [4] * 4 + [5] * 4 + [4] * 4


@pytest.mark.gpu
def test_other_settings_are_recorded_again():
    scale = [2.0]
    graphs = CUDAGraphs(lambda x: (x * scale[0],), lambda: scale[0])
    inputs = torch.rand(3, device="cuda")
    for scale[0] in (2.0, 3.0, 2.0):
        torch.testing.assert_close(graphs(inputs)[0], inputs * scale[0])


@pytest.mark.gpu
def test_a_function_that_waits_for_the_gpu_is_called(caplog):
    def waits(x):
        return (x + x.sum().item(),)

    graphs, inputs = CUDAGraphs(waits), torch.rand(3, device="cuda")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            torch.testing.assert_close(graphs(inputs), waits(inputs))
    assert [record.message.startswith("optimize: no CUDA graphs: ") for record in caplog.records] == [True]


class _Replays:
    """A recording that needs no GPU."""

    def __init__(self, function):
        self.replay = lambda inputs: function(*inputs)


@pytest.mark.parametrize("wrong", [False, True])
def test_a_recording_with_other_results_is_not_used(wrong, monkeypatch, caplog):
    graphs, inputs = CUDAGraphs(sums), (torch.rand(30, 4), torch.rand(30, 4))

    def planted(x, y):
        first, second = sums(x, y)
        return (first.flip(0) if wrong else first), second

    monkeypatch.setattr(graphs, "_record", lambda _: _Replays(planted))
    with caplog.at_level(logging.WARNING):
        recording = graphs._find_or_record(inputs)
    if not wrong:
        assert recording is graphs._find_or_record(inputs)
        assert not caplog.records
        return
    assert recording is None
    (record,) = caplog.records
    assert record.message.startswith("optimize: no CUDA graphs: a replay has other results: ")
    assert "% of the values differ, by up to " in record.message
    assert all(torch.equal(one, other) for one, other in zip(graphs(*inputs), sums(*inputs), strict=True))
