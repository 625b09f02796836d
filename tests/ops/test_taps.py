import torch
from hypothesis import given
from hypothesis import strategies as st

from maskrcnn_ext.ops.taps import segments, sum_taps


@given(st.lists(st.integers(0, 4), max_size=8))
def test_segments_lay_out_groups_side_by_side(counts):
    groups, positions, starts = segments(torch.tensor(counts, dtype=torch.long))
    assert groups.tolist() == [group for group, count in enumerate(counts) for _ in range(count)]
    assert positions.tolist() == [position for count in counts for position in range(count)]
    assert starts.tolist() == [sum(counts[:group]) for group in range(len(counts))]


def test_taps_are_summed_bin_by_bin():
    features = torch.arange(2 * 3 * 4 * 5, dtype=torch.float64).reshape(2, 3, 4, 5)
    rows = torch.tensor([7, 20 + 13, 0])  # (0, 1, 2), (1, 2, 3), (0, 0, 0) as image, y, x
    weights = torch.tensor([2.0, 0.5, 3.0], dtype=torch.float64)
    summed = sum_taps(features, rows, weights, torch.tensor([0, 2, 2]))
    expected = [2 * features[0, :, 1, 2] + 0.5 * features[1, :, 2, 3], torch.zeros(3), 3 * features[0, :, 0, 0]]
    torch.testing.assert_close(summed, torch.stack([row.double() for row in expected]))


def test_half_precision_features_are_summed_in_the_precision_of_the_weights():
    features = torch.full((1, 1, 1, 300), 1.0, dtype=torch.float16)
    summed = sum_taps(features, torch.arange(300), torch.full((300,), 10.001), torch.tensor([0]))
    assert summed.dtype == torch.float16
    assert summed.item() == torch.tensor(3000.3, dtype=torch.float16).item()
