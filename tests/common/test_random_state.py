"""Random generators are saved, restored and seeded without side effects."""

import random

import numpy as np
import pytest
import torch

from maskrcnn_ext.common.random_state import get_random_state, preserved_random_state, seeded, set_random_state


def draws() -> tuple[float, float, float, float]:
    return random.random(), random.gauss(0, 1), np.random.rand(), torch.rand(()).item()


def test_a_state_restores_every_generator_and_survives_a_checkpoint(tmp_path):
    draws()  # `gauss` of Python now holds its second number
    torch.save(get_random_state(), tmp_path / "state.pth")
    before = draws()
    set_random_state(torch.load(tmp_path / "state.pth", weights_only=True))
    assert draws() == before


@pytest.mark.parametrize("block", [preserved_random_state, lambda: seeded(3)])
def test_a_block_leaves_no_trace_even_if_it_fails(block):
    state = get_random_state()
    expected = draws()
    set_random_state(state)
    with pytest.raises(ZeroDivisionError), block():  # noqa: PT012
        draws()
        raise ZeroDivisionError
    assert draws() == expected


def test_equal_keys_lead_to_equal_draws_and_others_to_others():
    def drawn(*key):
        with seeded(*key):
            return draws()

    keys = [(0, 0), (1, 0), (0, 1), (1, 1)]
    assert [drawn(*key) for key in keys] == [drawn(*key) for key in keys]
    assert len({value for key in keys for value in drawn(*key)}) == 4 * len(keys)


@pytest.mark.gpu
def test_a_cuda_generator_is_seeded_and_restored():
    device = torch.device("cuda")
    state = torch.cuda.get_rng_state(device)
    with seeded(5, device=device):
        inside = torch.rand(3, device=device)
    assert torch.equal(torch.cuda.get_rng_state(device), state)
    with seeded(5, device=device):
        assert torch.equal(torch.rand(3, device=device), inside)
