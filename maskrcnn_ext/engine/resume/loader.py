"""A training loader that knows its place in the data, and goes on from there: the same images, drawn from the same random numbers."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Generator, Iterator
from typing import Any

from detectron2.data.common import AspectRatioGroupedDataset, ToIterableDataset
from torch.utils.data import DataLoader

from maskrcnn_ext.common.random_state import get_random_state, preserved_random_state, set_random_state
from maskrcnn_ext.engine.resume.stream import Mark, Place, Stream

logger = logging.getLogger(__name__)


class ResumableLoader:
    """The batches of a loader of Detectron2's ``build_detection_train_loader``; it is their iterator, since training iterates once.

    A loader of another make gives its batches as they come, and starts anew when a run resumes.
    """

    def __init__(self, loader: Any) -> None:
        """Wraps a loader, which is not to be iterated by anyone else."""
        self._loader = loader
        self._group_size: int | None = None
        if isinstance(loader, AspectRatioGroupedDataset):
            self._group_size, loader = loader.batch_size, loader.dataset
        is_known = isinstance(loader, DataLoader) and isinstance(loader.dataset, ToIterableDataset)
        self._inner: DataLoader | None = loader if is_known else None
        self._place = Place(drawn=[0] * self._shards)
        self._last: dict[int, Mark] = {}  # sample of each shard
        self._groups: tuple[list[tuple[Any, Mark]], ...] = ([], [])  # wide, and not
        self._batches: Iterator[Any] | None = None

    @property
    def _shards(self) -> int:
        return max(1, self._inner.num_workers) if self._inner is not None else 1

    def __iter__(self) -> ResumableLoader:
        return self

    def __next__(self) -> Any:
        self.start()
        assert self._batches is not None
        return next(self._batches)

    def start(self) -> None:
        """Starts the workers where they do not run, for which torch draws a random number."""
        if self._batches is not None:
            return
        if self._inner is None:
            self._batches = iter(self._loader)
            return
        stream = Stream(self._inner.dataset, copy.deepcopy(self._place))
        for pending in self._place.pending:
            self._group_of(*stream.make_again(pending))
        grouped = self._group_size is not None
        collate = self._inner.collate_fn if grouped else _CollateMarked(self._inner.collate_fn)
        drawn = self._started(_like(self._inner, stream, collate))
        self._batches = self._grouped(drawn) if grouped else self._as_drawn(drawn)

    def close(self) -> None:
        """Ends the workers; nothing more can be taken."""
        if isinstance(self._batches, Generator):
            self._batches.close()

    def _started(self, loader: DataLoader) -> Iterator[Any]:
        """The iterator of a loader, whose workers are seeded as those of the run's first one."""
        if self._place.began is None:
            self._place.began = get_random_state()
            return iter(loader)
        with preserved_random_state():
            set_random_state(self._place.began)
            return iter(loader)

    def _as_drawn(self, batches: Iterator[tuple[Any, list[Mark]]]) -> Iterator[Any]:
        for batch, marks in batches:
            self._count(marks)
            yield batch

    def _grouped(self, samples: Iterator[tuple[Any, Mark]]) -> Iterator[list[Any]]:
        """Batches of images that are all wider than high, or all not, as Detectron2's AspectRatioGroupedDataset makes them."""
        for sample, mark in samples:
            self._count([mark])
            group = self._group_of(sample, mark)
            if len(group) == self._group_size:
                batch = [sample for sample, _ in group]
                group.clear()
                yield batch

    def _group_of(self, sample: Any, mark: Mark) -> list[tuple[Any, Mark]]:
        group = self._groups[0 if sample["width"] > sample["height"] else 1]
        group.append((sample, mark))
        return group

    def _count(self, marks: list[Mark]) -> None:
        last = marks[-1]
        self._place.drawn[last.shard] += len(marks)
        self._place.batches += 1
        self._last[last.shard] = last

    def state_dict(self) -> dict[str, Any]:
        """Returns the place after the last batch that was taken; {} for a loader of another make."""
        if self._inner is None:
            return {}
        waiting = [mark for group in self._groups for _, mark in group]
        drawn_since = {shard: mark.after for shard, mark in self._last.items()} if self._inner.num_workers else {}
        return {
            "drawn": list(self._place.drawn),
            "batches": self._place.batches,
            "began": self._place.began,
            "random": {**self._place.random, **drawn_since},
            "pending": [{"index": mark.index, "position": mark.position, "random": mark.before} for mark in waiting],
        }

    def load_state_dict(self, state: dict[str, Any]) -> bool:
        """Goes to a place, before the first batch is taken.

        Returns:
            Whether the data goes on exactly: the state is of as many workers as there are now.
        """
        if self._inner is None or not state:
            return False
        if len(state["drawn"]) != self._shards:
            return self.skip(sum(state["drawn"]))
        self._place = Place(list(state["drawn"]), state["batches"], state["began"], state["random"], state["pending"])
        return True

    def skip(self, samples: int) -> bool:
        """Goes on after the first `samples` of this process's stream, drawn by whatever number of workers; returns False: not exactly."""
        self._place = Place([samples // self._shards] * self._shards)
        return False


class _CollateMarked:
    """Puts the marks beside the batch that a loader makes of the samples."""

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self._collate = collate

    def __call__(self, marked: list[tuple[Any, Mark]]) -> tuple[Any, list[Mark]]:
        return self._collate([sample for sample, _ in marked]), [mark for _, mark in marked]


def _like(loader: DataLoader, dataset: Stream, collate: Callable[[list[Any]], Any]) -> DataLoader:
    """A loader of the same settings: torch does not let the data set of one be exchanged."""
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
