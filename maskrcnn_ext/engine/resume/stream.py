"""Detectron2's training samples, each with the mark of its place in the stream, from any place on."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from detectron2.data.build import worker_init_reset_seed
from detectron2.data.common import ToIterableDataset
from detectron2.utils import comm
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from maskrcnn_ext.common.random_state import get_random_state, preserved_random_state, set_random_state
from maskrcnn_ext.data.mapping.augmentation.loader import stream_position


@dataclass(frozen=True)
class Mark:
    """The place of a sample: enough to make it again, or to go on after it."""

    shard: int  # of the sampler's indices, one a worker
    index: int  # in the data set
    position: int  # in the stream of this process
    # The random states before and, of a worker, after the sample was made, pickled. A tensor comes out of a worker through shared memory:
    # a pipe full of states would keep the worker of a trainer that was killed from ending.
    states: Tensor

    @property
    def before(self) -> dict[str, Any]:
        """The random state from which the sample was made."""
        return self._states()[0]

    @property
    def after(self) -> dict[str, Any]:
        """The random state that it left in its worker."""
        return self._states()[1]

    def _states(self) -> tuple[dict[str, Any], dict[str, Any]]:
        states: tuple[dict[str, Any], dict[str, Any]] = pickle.loads(self.states.numpy().tobytes())
        return states


@dataclass
class Place:
    """Where in the stream a process stands.

    Attributes:
        drawn: samples that each shard has given.
        batches: how many samples (grouped by aspect ratio) or batches (not grouped) the workers have handed over in turn.
        began: the random state with which the first loader of the run was started; its workers' seeds come from it.
        random: the random state that a shard's worker had after its last sample; none where the process itself maps.
        pending: samples that wait for others of their aspect ratio, oldest first: index, position and the random state they were made from.
    """

    drawn: list[int]
    batches: int = 0
    began: dict[str, Any] | None = None
    random: dict[int, dict[str, Any]] = field(default_factory=dict)
    pending: list[dict[str, Any]] = field(default_factory=list)


class Stream(IterableDataset):
    """Yields (sample, :class:`Mark`) in the order in which Detectron2's ToIterableDataset yields the samples."""

    def __init__(self, dataset: ToIterableDataset, start: Place) -> None:
        """Wraps `dataset`, to begin at `start`."""
        self._samples = dataset.dataset
        self._sampler = dataset.sampler
        self._is_sharded = dataset.shard_sampler
        # Of Detectron2's main branch: so many indices in a row go to one worker.
        self._chunk = getattr(dataset, "shard_chunk_size", 1)
        self._start = start
        self._rank, self._ranks = comm.get_rank(), comm.get_world_size()  # workers are in no process group

    def __iter__(self) -> Iterator[tuple[Any, Mark]]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        # A loader asks its workers in turn, from worker 0: the shard whose turn it is goes to that one.
        shard = (worker + self._start.batches) % workers
        if shard in self._start.random:
            set_random_state(self._start.random[shard])
        elif info is not None and shard != worker:
            # Nothing of this shard has been drawn yet: seeded as the worker that it was for.
            torch.manual_seed(info.seed - worker + shard)
            worker_init_reset_seed(shard)
        places: Iterator[tuple[int, int]] = enumerate(self._sampler)
        if self._is_sharded:
            places = ((p, index) for p, index in places if p // self._chunk % workers == shard)
        state = get_random_state()
        for position, index in islice(places, self._start.drawn[shard], None):
            # In a worker nothing draws but this; in the process that trains, the training does, and nobody asks for the state after.
            before = state if info else get_random_state()
            sample = self.make(int(index), position)
            state = get_random_state() if info else before
            yield sample, Mark(shard, int(index), position, _packed(before, state))

    def make(self, index: int, position: int) -> Any:
        """Returns the mapped sample of `index` in the data set."""
        token = stream_position.set(position * self._ranks + self._rank)
        try:
            return self._samples[index]
        finally:
            stream_position.reset(token)

    def make_again(self, pending: dict[str, Any]) -> tuple[Any, Mark]:
        """Returns a sample that a checkpoint says to wait, from the random state that it was made from."""
        with preserved_random_state():
            set_random_state(pending["random"])
            sample = self.make(pending["index"], pending["position"])
        states = _packed(pending["random"], pending["random"])
        return sample, Mark(0, pending["index"], pending["position"], states)


def _packed(before: dict[str, Any], after: dict[str, Any]) -> Tensor:
    return torch.frombuffer(bytearray(pickle.dumps((before, after))), dtype=torch.uint8)
