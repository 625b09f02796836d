"""What a training loader's worker was doing when it hung or died, and mistakes in the data that it found, each in one line."""

from __future__ import annotations

import logging
import os
import re
import struct
import time
from collections.abc import Callable, Iterator
from traceback import clear_frames
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from maskrcnn_ext.engine.machine import describe_memory
from maskrcnn_ext.errors import InputError

logger = logging.getLogger(__name__)

_DIED = re.compile(
    r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (?:is killed by signal: ([^.]+)|exited unexpectedly)"
)
_TIMED_OUT = "DataLoader timed out after"
_NO_SHARED_MEMORY = re.compile(r"shared memory.*No space left on device")


def guard_loader(loader: Any, timeout: float = 0) -> GuardedLoader:
    """Wraps a training loader: the same batches, and a fault is one line that names the sample.

    Args:
        loader: an iterable over batches that has a torch DataLoader somewhere inside, as those of Detectron2 have. To be wrapped before it
            is iterated.
        timeout: seconds without any sample after which the run ends; 0 for no limit. Needs loader workers: what hangs in the training
            process itself cannot be interrupted.
    """
    return GuardedLoader(loader, timeout)


class GuardedLoader:
    """See :func:`guard_loader`."""

    def __init__(self, loader: Any, timeout: float) -> None:
        self._loader = loader
        self._notes: Notes | None = None
        inner = _find_loader(loader)
        if inner is not None and inner.num_workers:
            self._notes = Notes(inner.num_workers)
            inner.worker_init_fn = _NotingInit(self._notes, inner.worker_init_fn)
            inner.collate_fn = _NotingCollate(self._notes, inner.collate_fn)
            inner.timeout = timeout or inner.timeout
        elif timeout:
            logger.warning(
                "train.loader_timeout=%g has no effect without loader workers: set dataloader.train.num_workers",
                timeout,
            )

    def __iter__(self) -> Iterator[Any]:
        # Begun here and not at the first batch: torch draws the workers' seeds now.
        return self._batches(iter(self._loader))

    def _batches(self, batches: Iterator[Any]) -> Iterator[Any]:
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except Exception as error:
                known = self.explain(error)
                if known is None:
                    raise
                # Cycles of frames and errors, such as torch makes when it passes a worker's error on, would keep the other workers alive
                # until they are collected; and then the queues that tell them to end are gone first.
                clear_frames(error.__traceback__)
                try:
                    raise known from error
                finally:
                    del known
            yield batch

    def explain(self, error: BaseException) -> InputError | None:
        """As :func:`explain`, with the sample named. A worker's death can surface anywhere in the training process, not only here."""
        return explain(error, self._notes)


class Note(NamedTuple):
    """What a worker is at: `seconds` since it began with the sample."""

    worker: int
    pid: int
    seconds: float
    sample: str


class Notes:
    """What each worker is at, in memory that all share, so that it can be read when the worker answers no more."""

    _HEAD = struct.Struct("<qdH")  # process id, time, bytes of text; time 0: between samples
    _SIZE = 1024

    def __init__(self, workers: int) -> None:
        # A shared tensor reaches forked and spawned workers alike.
        self._shared = torch.zeros((workers, self._SIZE), dtype=torch.uint8).share_memory_()

    def write(self, worker: int, sample: str) -> None:
        """Notes that a worker begins with a sample."""
        text = sample.encode("utf-8", "replace")[: self._SIZE - self._HEAD.size]
        self._put(worker, self._HEAD.pack(os.getpid(), time.time(), len(text)) + text)

    def clear(self, worker: int) -> None:
        """Notes that a worker has done its sample."""
        self._put(worker, self._HEAD.pack(os.getpid(), 0.0, 0))

    def _put(self, worker: int, data: bytes) -> None:
        self._shared[worker].numpy()[: len(data)] = memoryview(data)

    def read(self) -> list[Note]:
        """Returns the notes of the workers that are at a sample, longest at it first."""
        now, found = time.time(), []
        for worker, row in enumerate(self._shared):
            data = row.numpy().tobytes()
            pid, began, length = self._HEAD.unpack_from(data)
            if began:
                text = data[self._HEAD.size : self._HEAD.size + length].decode("utf-8", "replace")
                found.append(Note(worker, pid, now - began, text))
        return sorted(found, key=lambda note: -note.seconds)

    def pids(self) -> list[int]:
        """Returns the process ids of the workers that have begun."""
        return [pid for pid in (self._HEAD.unpack_from(row.numpy().tobytes())[0] for row in self._shared) if pid]


def explain(error: BaseException, notes: Notes | None = None) -> InputError | None:
    """Returns what to tell a user of an error that a loader has raised, in one line; None where it is no fault that is known here.

    Args:
        error: as it was caught.
        notes: of the loader's workers.
    """
    text = _texts(error)
    if isinstance(error, InputError):
        return _unwrapped(error)
    died = _DIED.search(text)
    if died:
        return _death(set(map(int, died[1].split(","))), (died[2] or "").strip(), notes)
    if _TIMED_OUT in text:
        seconds = text.split(_TIMED_OUT)[1].split()[0]
        at = [_told(note) for note in notes.read()] if notes else []
        return InputError(
            f"the data loader gave no sample for {seconds} seconds (train.loader_timeout): "
            f"{'; '.join(at) or 'no worker says what it was at'}: see whether that file can be read, leave it out, or raise the limit"
        )
    if _NO_SHARED_MEMORY.search(text):
        return InputError(
            f"the data loader's workers have no shared memory left: enlarge /dev/shm (docker run --shm-size=8g), or lower "
            f"dataloader.train.num_workers; {describe_memory(notes.pids() if notes else [])}"
        )
    return None


def _texts(error: BaseException | None) -> str:
    """The messages of an error and of what caused it."""
    texts = []
    while error is not None:
        texts.append(str(error))
        error = error.__cause__ or error.__context__
    return "\n".join(texts)


def _unwrapped(error: InputError) -> InputError | None:
    """The message that torch has put a worker's traceback around; None where it has not."""
    text = str(error)
    if not text.startswith("Caught "):
        return None
    name = f"{type(error).__module__}.{type(error).__qualname__}: "
    return InputError(text.rpartition(name)[2].strip().splitlines()[0])


def _death(pids: set[int], signal_name: str, notes: Notes | None) -> InputError:
    at = [_told(note) for note in notes.read() if note.pid in pids] if notes else []
    how = f"was killed by a signal ({signal_name})" if signal_name else "ended"
    who = "; ".join(at) or f"process {', '.join(map(str, sorted(pids)))}, which does not say what it was at"
    if "Bus error" in signal_name:
        advice = "shared memory is too small: enlarge /dev/shm (docker run --shm-size=8g), or lower dataloader.train.num_workers"
    elif signal_name in ("", "Killed"):
        advice = (
            "most often the system was out of memory: lower dataloader.train.num_workers, give the job more memory, or look into the "
            "kernel's log (dmesg) for oom-kill"
        )
    else:
        advice = "a library crashed on this file: dataloader.train.num_workers=0 shows where"
    figures = describe_memory(notes.pids() if notes else [])
    return InputError(f"a worker of the data loader {how}: {who}: {advice}; {figures}")


def _told(note: Note) -> str:
    return f"worker {note.worker} (pid {note.pid}) was at {note.sample} for {note.seconds:.0f} s"


def _find_loader(holder: Any, depth: int = 6) -> DataLoader | None:
    """The DataLoader inside wrappers such as Detectron2's AspectRatioGroupedDataset."""
    if isinstance(holder, DataLoader):
        return holder
    if depth == 0 or not hasattr(holder, "__iter__"):
        return None
    held = vars(holder).values() if hasattr(holder, "__dict__") else ()
    return next((found for value in held if (found := _find_loader(value, depth - 1)) is not None), None)


class _NotingInit:
    """A worker's `worker_init_fn`: then its own copy of the data set notes each record that is fetched from it."""

    def __init__(self, notes: Notes, inner: Callable[[int], Any] | None) -> None:
        self._notes = notes
        self._inner = inner

    def __call__(self, worker: int) -> None:
        if self._inner is not None:
            self._inner(worker)
        info = get_worker_info()
        if info is not None:
            _note_records(info.dataset, self._notes, worker)


class _NotingCollate:
    """A loader's `collate_fn`, which is what a worker calls when its sample is done."""

    def __init__(self, notes: Notes, inner: Callable[[list[Any]], Any]) -> None:
        self._notes = notes
        self._inner = inner

    def __call__(self, samples: list[Any]) -> Any:
        batch = self._inner(samples)
        info = get_worker_info()
        if info is not None:
            self._notes.clear(info.id)
        return batch


def _note_records(dataset: Dataset, notes: Notes, worker: int) -> None:
    """Puts a :class:`_NotedRecords` in the place of each data set inside `dataset` that holds none itself: there the records are."""
    for name, held in list(vars(dataset).items()):
        if not isinstance(held, Dataset):
            continue
        if any(isinstance(value, Dataset) for value in vars(held).values()):
            _note_records(held, notes, worker)
        elif not isinstance(held, IterableDataset):
            setattr(dataset, name, _NotedRecords(held, notes, worker))


class _NotedRecords(Dataset):
    """The records of a data set; which one a worker is at is noted."""

    def __init__(self, dataset: Any, notes: Notes, worker: int) -> None:
        self._dataset = dataset
        self._notes = notes
        self._worker = worker

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Any:
        self._notes.write(self._worker, f"record {index}")
        record = self._dataset[index]
        if isinstance(record, dict) and "file_name" in record:
            self._notes.write(self._worker, f"{record['file_name']} (image {record.get('image_id')!r})")
        return record
