"""COCO results of an evaluation that runs: they wait in a temporary file, so that memory does not hold the masks of all images."""

from __future__ import annotations

import pickle
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from detectron2.utils import comm

from maskrcnn_ext.common.files import WriteError
from maskrcnn_ext.evaluation.results import Results

# Results that a process sends at once.
_BATCH = 10_000
_KEYS = ("bbox", "segmentation", "keypoints")


class SpooledResults(Mapping[Any, Results]):
    """Results by the id of their image, in the order in which images were added; each use of an image reads it again.

    Attributes:
        counts: number of results of each image.
        having: number of results that have ``bbox``, ``segmentation`` and ``keypoints``.

    Example:
        >>> results = SpooledResults()
        >>> results.add(7, [{"image_id": 7, "score": 0.5, "bbox": [0, 0, 1, 1]}])
        >>> results[7][0]["score"], results.having["segmentation"]
        (0.5, 0)
    """

    def __init__(self, folder: Path | None = None) -> None:
        """Opens the file, which disappears with this object.

        Args:
            folder: where the file is; by default the system's folder for temporary files.

        Raises:
            WriteError: the folder is not writable.
        """
        self._folder = folder or Path(tempfile.gettempdir())
        self._clear()

    def _clear(self) -> None:
        with self._named_errors():
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 (closed with this object)
        self._places: dict[Any, list[int]] = {}
        self.counts: Counter[Any] = Counter()
        self.having: Counter[str] = Counter()

    def add(self, image_id: Any, results: Results) -> None:
        """Adds results of an image.

        Raises:
            WriteError: the disk is full.
        """
        with self._named_errors():
            self._places.setdefault(image_id, []).append(self._file.seek(0, 2))
            self._file.write(pickle.dumps(results))
            self._file.flush()
        self.counts[image_id] += len(results)
        self.having.update(key for result in results for key in _KEYS if result.get(key))

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise WriteError(f"cannot store predictions in {self._folder} ({error.strerror or error})") from error

    def gather(self) -> None:
        """Moves the results of all processes to the main one. Every process calls it."""
        batches = iter(()) if comm.is_main_process() else self._batches()
        while any(comm.all_gather(bool(batch := next(batches, [])))):
            for received in comm.gather(batch):
                for image_id, results in received:
                    self.add(image_id, results)
        if not comm.is_main_process():
            self._clear()

    def _batches(self) -> Iterator[list[tuple[Any, Results]]]:
        batch, size = [], 0
        for image_id, results in self.items():
            batch.append((image_id, results))
            size += 1 + len(results)
            if size >= _BATCH:
                yield batch
                batch, size = [], 0
        yield batch

    def __getitem__(self, image_id: Any) -> Results:
        found = []
        for place in self._places[image_id]:
            self._file.seek(place)
            found += pickle.load(self._file)
        return found

    def __iter__(self) -> Iterator[Any]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)
