"""Explains faults of a training loader in one line: a worker that hung or died, with its sample, or a mistake in the data."""

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
from maskrcnn_ext.engine.worker_signals import ignore_group_signals
from maskrcnn_ext.errors import InputError

logger = logging.getLogger(__name__)

_DIED = re.compile(
    r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (?:is killed by signal: ([^.]+)|exited unexpectedly)"
)
_TIMED_OUT = "DataLoader timed out after"
_NO_SHARED_MEMORY = re.compile(r"shared memory.*No space left on device")


class GuardedLoader:
    """Yields the batches of a loader; if it fails, raises a one-line error that names the sample. Its workers ignore Ctrl-C and SIGTERM.

    Example::

        for batch in GuardedLoader(build_detection_train_loader(...), timeout=600): ...
    """

    def __init__(self, loader: Any, timeout: float = 0) -> None:
        """Wraps a loader, before it is iterated.

        Args:
            loader: an iterable over batches with a torch DataLoader inside, such as Detectron2's loaders.
            timeout: seconds without a sample after which the run ends; 0 for no limit. It needs loader workers, because the training
                process cannot interrupt itself.
        """
        self._loader = loader
        self._records: WorkerRecords | None = None
        inner = _find_loader(loader)
        if inner is not None and inner.num_workers:
            self._records = WorkerRecords(inner.num_workers)
            inner.worker_init_fn = _RecordingInit(self._records, inner.worker_init_fn)
            inner.collate_fn = _RecordingCollate(self._records, inner.collate_fn)
            inner.timeout = timeout or inner.timeout
        elif timeout:
            logger.warning(
                "train.loader_timeout=%g has no effect without loader workers: set dataloader.train.num_workers",
                timeout,
            )

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        # Starts the loader now and not with the first batch, because torch draws the workers' seeds then.
        return self._iterate(iter(self._loader))

    def _iterate(self, batches: Iterator[Any]) -> Iterator[Any]:
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except Exception as error:
                known = self.explain(error)
                if known is None:
                    raise
                # Torch re-raises a worker's error with reference cycles of frames and errors. They would keep the other workers alive until
                # they are collected, and then the queues that end the workers might be gone already.
                clear_frames(error.__traceback__)
                try:
                    raise known from error
                finally:
                    del known
            yield batch

    def explain(self, error: BaseException) -> InputError | None:
        """Returns :func:`explain_loader_error` with the sample. A worker's death can raise anywhere in the training process."""
        return explain_loader_error(error, self._records)


class WorkerRecord(NamedTuple):
    """The sample that a worker is loading, and the seconds since it started."""

    worker: int
    pid: int
    seconds: float
    sample: str


class WorkerRecords:
    """The sample of each worker in shared memory, which can be read after the worker has died."""

    _HEAD = struct.Struct("<qdH")  # process id, time (0 between samples), bytes of text
    _SIZE = 1024

    def __init__(self, workers: int) -> None:
        # A shared tensor reaches forked and spawned workers alike.
        self._shared = torch.zeros((workers, self._SIZE), dtype=torch.uint8).share_memory_()

    def write(self, worker: int, sample: str) -> None:
        """Records that a worker starts to load a sample."""
        text = sample.encode("utf-8", "replace")[: self._SIZE - self._HEAD.size]
        self._put(worker, self._HEAD.pack(os.getpid(), time.time(), len(text)) + text)

    def clear(self, worker: int) -> None:
        """Records that a worker has finished its sample."""
        self._put(worker, self._HEAD.pack(os.getpid(), 0.0, 0))

    def _put(self, worker: int, data: bytes) -> None:
        self._shared[worker].numpy()[: len(data)] = memoryview(data)

    def read(self) -> list[WorkerRecord]:
        """Returns the records of the workers that are loading a sample, the longest first."""
        now, found = time.time(), []
        for worker, row in enumerate(self._shared):
            data = row.numpy().tobytes()
            pid, began, length = self._HEAD.unpack_from(data)
            if began:
                text = data[self._HEAD.size : self._HEAD.size + length].decode("utf-8", "replace")
                found.append(WorkerRecord(worker, pid, now - began, text))
        return sorted(found, key=lambda record: -record.seconds)

    def pids(self) -> list[int]:
        """Returns the process ids of the workers that have started."""
        return [pid for pid in (self._HEAD.unpack_from(row.numpy().tobytes())[0] for row in self._shared) if pid]


def explain_loader_error(error: BaseException, records: WorkerRecords | None = None) -> InputError | None:
    """Returns a one-line explanation of an error of a data loader; None if the error is unknown.

    Args:
        error: the error.
        records: the samples of the loader's workers.

    Example:
        >>> print(explain_loader_error(RuntimeError("DataLoader timed out after 30 seconds")))
        the data loader returned no sample for 30 seconds (train.loader_timeout): ...
    """
    text = _chained_messages(error)
    if isinstance(error, InputError):
        return _without_worker_traceback(error)
    died = _DIED.search(text)
    if died:
        return _explain_death(set(map(int, died[1].split(","))), (died[2] or "").strip(), records)
    if _TIMED_OUT in text:
        seconds = text.split(_TIMED_OUT)[1].split()[0]
        samples = [_describe_record(record) for record in records.read()] if records else []
        return InputError(
            f"the data loader returned no sample for {seconds} seconds (train.loader_timeout): "
            f"{'; '.join(samples) or 'the sample is unknown'}: check whether that file can be read, leave it out, or raise the limit"
        )
    if _NO_SHARED_MEMORY.search(text):
        return InputError(
            f"the data loader's workers have no shared memory left: enlarge /dev/shm (docker run --shm-size=8g), or lower "
            f"dataloader.train.num_workers; {describe_memory(records.pids() if records else [])}"
        )
    return None


def _chained_messages(error: BaseException | None) -> str:
    """Returns the messages of an error and of its causes."""
    texts = []
    while error is not None:
        texts.append(str(error))
        error = error.__cause__ or error.__context__
    return "\n".join(texts)


def _without_worker_traceback(error: InputError) -> InputError | None:
    """Returns an error without the traceback that torch has added to its message; None if it has added none."""
    text = str(error)
    if not text.startswith("Caught "):
        return None
    name = f"{type(error).__module__}.{type(error).__qualname__}: "
    return InputError(text.rpartition(name)[2].strip().splitlines()[0])


def _explain_death(pids: set[int], signal_name: str, records: WorkerRecords | None) -> InputError:
    samples = [_describe_record(record) for record in records.read() if record.pid in pids] if records else []
    how = f"was killed by a signal ({signal_name})" if signal_name else "ended"
    who = "; ".join(samples) or f"process {', '.join(map(str, sorted(pids)))}, whose sample is unknown"
    if "Bus error" in signal_name:
        advice = "shared memory is too small: enlarge /dev/shm (docker run --shm-size=8g), or lower dataloader.train.num_workers"
    elif signal_name in ("", "Killed"):
        advice = (
            "most often the system was out of memory: lower dataloader.train.num_workers, give the job more memory, or look for oom-kill "
            "in the kernel's log (dmesg)"
        )
    else:
        advice = "a library crashed on this file: dataloader.train.num_workers=0 shows where"
    memory = describe_memory(records.pids() if records else [])
    return InputError(f"a worker of the data loader {how}: {who}: {advice}; {memory}")


def _describe_record(record: WorkerRecord) -> str:
    return f"worker {record.worker} (pid {record.pid}) was loading {record.sample} for {record.seconds:.0f} s"


def _find_loader(wrapper: Any, depth: int = 6) -> DataLoader | None:
    """Returns the DataLoader inside wrappers such as Detectron2's AspectRatioGroupedDataset; None without a DataLoader."""
    if isinstance(wrapper, DataLoader):
        return wrapper
    if depth == 0 or not hasattr(wrapper, "__iter__"):
        return None
    attributes = vars(wrapper).values() if hasattr(wrapper, "__dict__") else ()
    return next((found for value in attributes if (found := _find_loader(value, depth - 1)) is not None), None)


class _RecordingInit:
    """The `worker_init_fn` of a worker: ignores signals to the process group, and records each sample that the worker reads."""

    def __init__(self, records: WorkerRecords, inner: Callable[[int], Any] | None) -> None:
        self._records = records
        self._inner = inner

    def __call__(self, worker: int) -> None:
        ignore_group_signals()
        if self._inner is not None:
            self._inner(worker)
        info = get_worker_info()
        if info is not None:
            _record_samples(info.dataset, self._records, worker)


class _RecordingCollate:
    """The `collate_fn` of a loader, which a worker calls when its sample is finished."""

    def __init__(self, records: WorkerRecords, inner: Callable[[list[Any]], Any]) -> None:
        self._records = records
        self._inner = inner

    def __call__(self, samples: list[Any]) -> Any:
        batch = self._inner(samples)
        info = get_worker_info()
        if info is not None:
            self._records.clear(info.id)
        return batch


def _record_samples(dataset: Dataset, records: WorkerRecords, worker: int) -> None:
    """Wraps the innermost data sets of `dataset`, which return Detectron2's dicts, in :class:`_RecordedDataset`."""
    for name, inner in list(vars(dataset).items()):
        if not isinstance(inner, Dataset):
            continue
        if any(isinstance(value, Dataset) for value in vars(inner).values()):
            _record_samples(inner, records, worker)
        elif not isinstance(inner, IterableDataset):
            setattr(dataset, name, _RecordedDataset(inner, records, worker))


class _RecordedDataset(Dataset):
    """A data set that records which sample its worker is loading."""

    def __init__(self, dataset: Any, records: WorkerRecords, worker: int) -> None:
        self._dataset = dataset
        self._records = records
        self._worker = worker

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Any:
        self._records.write(self._worker, f"record {index}")
        record = self._dataset[index]
        if isinstance(record, dict) and "file_name" in record:
            self._records.write(self._worker, f"{record['file_name']} (image {record.get('image_id')!r})")
        return record
