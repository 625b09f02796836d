"""A training loader that can be resumed: it continues with the same images, mapped with the same random numbers.

Detectron2's loader is an endless stream of samples, drawn by one or several workers. :class:`ResumableLoader` marks every sample with
its position and the random state that it was mapped from. Its state, a :class:`StreamPosition`, lets a new process continue the stream.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from detectron2.data.build import worker_init_reset_seed
from detectron2.data.common import AspectRatioGroupedDataset, ToIterableDataset
from detectron2.utils import comm
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from maskrcnn_ext.common.random_state import get_random_state, preserved_random_state, set_random_state
from maskrcnn_ext.data.mapping.augmentation.loader import stream_position


@dataclass(frozen=True)
class SampleMark:
    """The position of a sample in the stream, with the random states around its mapping.

    Attributes:
        shard: the part of the sampler's indices that it belongs to; there is one per worker.
        index: index in the data set.
        position: position in the stream of this process.
        states: the random states before and, in a worker, after the mapping, pickled into a uint8 tensor. A tensor leaves a worker through
            shared memory; a pipe full of states would keep the worker of a killed trainer from ending.
    """

    shard: int
    index: int
    position: int
    states: Tensor

    @property
    def before(self) -> dict[str, Any]:
        """The random state that the sample was mapped from."""
        return self._unpickle()[0]

    @property
    def after(self) -> dict[str, Any]:
        """The random state of its worker after the mapping."""
        return self._unpickle()[1]

    def _unpickle(self) -> tuple[dict[str, Any], dict[str, Any]]:
        states: tuple[dict[str, Any], dict[str, Any]] = pickle.loads(self.states.numpy().tobytes())
        return states


@dataclass
class StreamPosition:
    """How far one process has read its stream of samples.

    Attributes:
        drawn: number of samples drawn from each shard.
        batches: number of samples (grouped by aspect ratio) or batches (not grouped) that the workers have returned in turn.
        began: the random state from which the first loader of the run was started; the seeds of its workers come from it.
        random: random state of each shard's worker after its last sample; empty without workers.
        pending: samples that wait for others of their aspect ratio, oldest first: index, position and the random state before mapping.
    """

    drawn: list[int]
    batches: int = 0
    began: dict[str, Any] | None = None
    random: dict[int, dict[str, Any]] = field(default_factory=dict)
    pending: list[dict[str, Any]] = field(default_factory=list)


class ResumableLoader:
    """Iterates over the batches of Detectron2's ``build_detection_train_loader``, and can save and restore its position.

    It is its own iterator, since training iterates once. A loader of another type is iterated as it is, and starts from the beginning when
    a run is resumed.

    Example::

        loader = ResumableLoader(build_detection_train_loader(...))
        loader.load_state_dict(checkpoint["data"])
    """

    def __init__(self, loader: Any) -> None:
        """Wraps a loader; nothing else may iterate over it."""
        self._loader = loader
        self._group_size: int | None = None
        if isinstance(loader, AspectRatioGroupedDataset):
            self._group_size, loader = loader.batch_size, loader.dataset
        is_known = isinstance(loader, DataLoader) and isinstance(loader.dataset, ToIterableDataset)
        self._inner: DataLoader | None = loader if is_known else None
        self._position = StreamPosition(drawn=[0] * self._num_shards)
        self._last: dict[int, SampleMark] = {}  # of each shard
        self._groups: tuple[list[tuple[Any, SampleMark]], ...] = ([], [])  # wide images, and others
        self._batches: Iterator[Any] | None = None

    @property
    def _num_shards(self) -> int:
        return max(1, self._inner.num_workers) if self._inner is not None else 1

    def __iter__(self) -> ResumableLoader:
        return self

    def __next__(self) -> Any:
        self.start()
        assert self._batches is not None
        return next(self._batches)

    def start(self) -> None:
        """Starts the workers, unless they run; torch draws a random number for that."""
        if self._batches is not None:
            return
        if self._inner is None:
            self._batches = iter(self._loader)
            return
        stream = MarkedStream(self._inner.dataset, copy.deepcopy(self._position))
        for pending in self._position.pending:
            self._add_to_group(*stream.remake_sample(pending))
        is_grouped = self._group_size is not None
        collate = self._inner.collate_fn if is_grouped else _CollateMarked(self._inner.collate_fn)
        drawn = self._start_workers(_copy_loader(self._inner, stream, collate))
        self._batches = self._iterate_grouped(drawn) if is_grouped else self._iterate_batches(drawn)

    def close(self) -> None:
        """Ends the workers; the loader cannot be used afterwards."""
        if isinstance(self._batches, Generator):
            self._batches.close()

    def _start_workers(self, loader: DataLoader) -> Iterator[Any]:
        """Returns the iterator of a loader whose workers get the seeds of the run's first loader."""
        if self._position.began is None:
            self._position.began = get_random_state()
            return iter(loader)
        with preserved_random_state():
            set_random_state(self._position.began)
            return iter(loader)

    def _iterate_batches(self, batches: Iterator[tuple[Any, list[SampleMark]]]) -> Iterator[Any]:
        for batch, marks in batches:
            self._count(marks)
            yield batch

    def _iterate_grouped(self, samples: Iterator[tuple[Any, SampleMark]]) -> Iterator[list[Any]]:
        """Yields batches of images that are all wider than high, or all not, like Detectron2's AspectRatioGroupedDataset."""
        for sample, mark in samples:
            self._count([mark])
            group = self._add_to_group(sample, mark)
            if len(group) == self._group_size:
                batch = [sample for sample, _ in group]
                group.clear()
                yield batch

    def _add_to_group(self, sample: Any, mark: SampleMark) -> list[tuple[Any, SampleMark]]:
        group = self._groups[0 if sample["width"] > sample["height"] else 1]
        group.append((sample, mark))
        return group

    def _count(self, marks: list[SampleMark]) -> None:
        last = marks[-1]
        self._position.drawn[last.shard] += len(marks)
        self._position.batches += 1
        self._last[last.shard] = last

    def state_dict(self) -> dict[str, Any]:
        """Returns the position after the last batch that was taken; {} for a loader of another type."""
        if self._inner is None:
            return {}
        waiting = [mark for group in self._groups for _, mark in group]
        drawn_since = {shard: mark.after for shard, mark in self._last.items()} if self._inner.num_workers else {}
        return {
            "drawn": list(self._position.drawn),
            "batches": self._position.batches,
            "began": self._position.began,
            "random": {**self._position.random, **drawn_since},
            "pending": [{"index": mark.index, "position": mark.position, "random": mark.before} for mark in waiting],
        }

    def load_state_dict(self, state: dict[str, Any]) -> bool:
        """Moves to a saved position, before the first batch is taken.

        Returns:
            Whether the data continues exactly: the state was saved with the present number of workers.
        """
        if self._inner is None or not state:
            return False
        if len(state["drawn"]) != self._num_shards:
            self.skip(sum(state["drawn"]))
            return False
        self._position = StreamPosition(
            list(state["drawn"]), state["batches"], state["began"], state["random"], state["pending"]
        )
        return True

    def skip(self, samples: int) -> None:
        """Skips the first `samples` of this process's stream; the random numbers of the following ones are new."""
        self._position = StreamPosition([samples // self._num_shards] * self._num_shards)


class MarkedStream(IterableDataset):
    """Yields (sample, :class:`SampleMark`) in the order of Detectron2's ToIterableDataset."""

    def __init__(self, dataset: ToIterableDataset, start: StreamPosition) -> None:
        """Wraps `dataset`, to begin at `start`."""
        self._samples = dataset.dataset
        self._sampler = dataset.sampler
        self._is_sharded = dataset.shard_sampler
        # Detectron2's main branch gives each worker this many consecutive indices.
        self._chunk = getattr(dataset, "shard_chunk_size", 1)
        self._start = start
        self._rank, self._ranks = comm.get_rank(), comm.get_world_size()  # stored, as workers have no process group

    def __iter__(self) -> Iterator[tuple[Any, SampleMark]]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        # A loader asks its workers in turn, from worker 0, so that worker continues the shard whose turn it is.
        shard = (worker + self._start.batches) % workers
        if shard in self._start.random:
            set_random_state(self._start.random[shard])
        elif info is not None and shard != worker:
            # Nothing has been drawn from this shard yet: use the seed of its original worker.
            torch.manual_seed(info.seed - worker + shard)
            worker_init_reset_seed(shard)
        places: Iterator[tuple[int, int]] = enumerate(self._sampler)
        if self._is_sharded:
            places = ((p, index) for p, index in places if p // self._chunk % workers == shard)
        state = get_random_state()
        for position, index in islice(places, self._start.drawn[shard], None):
            # In a worker only the mapping draws, so the state before is the last one after. In the training process the training draws as
            # well, and the state after is not needed.
            before = state if info else get_random_state()
            sample = self.make_sample(int(index), position)
            state = get_random_state() if info else before
            yield sample, SampleMark(shard, int(index), position, _pickle_states(before, state))

    def make_sample(self, index: int, position: int) -> Any:
        """Returns the mapped sample of an index of the data set.

        Args:
            index: index in the data set.
            position: position in the stream of this process.
        """
        token = stream_position.set(position * self._ranks + self._rank)
        try:
            return self._samples[index]
        finally:
            stream_position.reset(token)

    def remake_sample(self, pending: dict[str, Any]) -> tuple[Any, SampleMark]:
        """Returns a pending sample of a checkpoint, mapped again from its random state."""
        with preserved_random_state():
            set_random_state(pending["random"])
            sample = self.make_sample(pending["index"], pending["position"])
        states = _pickle_states(pending["random"], pending["random"])
        return sample, SampleMark(0, pending["index"], pending["position"], states)


def _pickle_states(before: dict[str, Any], after: dict[str, Any]) -> Tensor:
    return torch.frombuffer(bytearray(pickle.dumps((before, after))), dtype=torch.uint8)


class _CollateMarked:
    """Collates the samples with the loader's own function, and returns their marks beside the batch."""

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self._collate = collate

    def __call__(self, marked: list[tuple[Any, SampleMark]]) -> tuple[Any, list[SampleMark]]:
        return self._collate([sample for sample, _ in marked]), [mark for _, mark in marked]


def _copy_loader(loader: DataLoader, dataset: MarkedStream, collate: Callable[[list[Any]], Any]) -> DataLoader:
    """Returns a loader with the same settings for another data set, which torch does not allow to exchange."""
    return DataLoader(
        dataset,
        batch_size=loader.batch_size,
        drop_last=loader.drop_last,
        num_workers=loader.num_workers,
        collate_fn=collate,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=loader.generator,
        prefetch_factor=loader.prefetch_factor,
        persistent_workers=loader.persistent_workers,
    )
