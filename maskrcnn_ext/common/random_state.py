"""Saves, restores and seeds the random generators of Python, NumPy and torch."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def get_random_state() -> dict[str, Any]:
    """Returns the state of all generators as tensors and plain values, which can be saved in a checkpoint.

    The state of the current CUDA device is included if CUDA is in use, except in a worker of a data loader: a forked process
    must not touch CUDA.

    Example:
        >>> state = get_random_state()
        >>> before = random.random()
        >>> set_random_state(state)
        >>> random.random() == before
        True
    """
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    state = {
        "python": {"version": version, "words": torch.tensor(words), "gauss": gauss},
        "numpy": {
            "name": name,
            "keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "cached": float(cached),
        },
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_initialized() and torch.utils.data.get_worker_info() is None:
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Restores a state that :func:`get_random_state` returned."""
    python, numpy = state["python"], state["numpy"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    keys = numpy["keys"].numpy().astype(np.uint32)
    np.random.set_state((numpy["name"], keys, numpy["position"], numpy["has_gauss"], numpy["cached"]))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


@contextmanager
def preserved_random_state() -> Iterator[None]:
    """Restores all generators when the block ends.

    Example:
        >>> with preserved_random_state():
        ...     first = random.random()
        >>> first == random.random()
        True
    """
    state = get_random_state()
    try:
        yield
    finally:
        set_random_state(state)


@contextmanager
def seeded(*key: int, device: torch.device | None = None) -> Iterator[None]:
    """Seeds all generators for the duration of the block and restores them when it ends.

    Args:
        key: numbers from 0. Equal keys lead to equal draws, and each generator gets a different seed. Compare keys of one length: NumPy's
            ``SeedSequence`` ignores trailing zeros.
        device: a CUDA device whose generator is also seeded, with the first number of `key`. Other CUDA generators, which
            training uses, are not changed.

    Example:
        >>> with seeded(0, 7):
        ...     first = random.random()
        >>> with seeded(0, 7):
        ...     first == random.random()
        True
    """
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state(device) if device is not None and device.type == "cuda" else None
    seeds = np.random.SeedSequence(key).generate_state(3).tolist()
    random.seed(seeds[0])
    np.random.seed(seeds[1])
    torch.default_generator.manual_seed(seeds[2])  # torch.manual_seed would seed every CUDA generator as well
    if device is not None and cuda is not None:
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(key[0])
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if cuda is not None:
            torch.cuda.set_rng_state(cuda, device)
