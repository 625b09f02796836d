"""Predicts images in batches and stores the results in a journal; an image that fails does not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
import torch
from detectron2.structures import Instances

from maskrcnn_ext.common.text import one_line
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.inference.base_predictor import BasePredictor
from maskrcnn_ext.inference.jobs.journal import Journal, Journals
from maskrcnn_ext.inference.results import to_coco
from maskrcnn_ext.inference.sources import InputImage
from maskrcnn_ext.inference.tiling.predictor import TiledPredictor

# Batches per chunk: images of one size in a chunk share a batch. One chunk is read ahead.
_BATCHES_PER_CHUNK = 4
_READER_THREADS = 4
_ReadImage = tuple[np.ndarray, dict[str, Any]]  # pixels, and the model's input
# Items, each with the future of its pixels, or None if it need not be read.
Chunk: TypeAlias = list[tuple[InputImage, "Future[_ReadImage] | None"]]


class BatchRunner:
    """Predicts the items that a journal does not have yet, and adds their results to it.

    Attributes:
        predicted: number of images predicted so far.

    Example:
        ::

            runner = BatchRunner(predictor, journal, on_failure=print, category_ids=[1], batch_size=4)
            for chunk in runner.chunks(items):
                runner.predict_missing(chunk)
    """

    def __init__(
        self,
        predictor: BasePredictor,
        journal: Journal | Journals,
        on_failure: Callable[[InputImage, Exception], None],
        *,
        category_ids: Sequence[Any],
        batch_size: int = 1,
        tiled: TiledPredictor | None = None,
    ) -> None:
        """Stores the arguments; nothing is read yet.

        Args:
            predictor: the model.
            journal: gets ``{"size": [height, width], "results": COCO results without image_id}`` under the key of each item.
            on_failure: called with an item that cannot be read or predicted, and the error.
            category_ids: the id of each class in the results.
            batch_size: images of one size that are predicted at once.
            tiled: predicts the images tile by tile, instead of `predictor`.
        """
        self.predicted = 0
        self._predictor = predictor
        self._journal = journal
        self._on_failure = on_failure
        self._category_ids = category_ids
        self._batch_size = batch_size
        self._tiled = tiled

    def chunks(self, items: Iterable[InputImage]) -> Iterator[Chunk]:
        """Yields the items in chunks. The next chunk is read in threads while the caller predicts this one."""
        items = iter(items)
        with ThreadPoolExecutor(_READER_THREADS) as readers:
            previous: Chunk = []
            while batch := list(islice(items, _BATCHES_PER_CHUNK * self._batch_size)):
                chunk = [
                    (item, None if self._tiled or item.key in self._journal else readers.submit(self._read, item))
                    for item in batch
                ]
                if previous:
                    yield previous
                previous = chunk
            if previous:
                yield previous

    def predict_missing(self, chunk: Chunk) -> dict[str, np.ndarray]:
        """Predicts the items of a chunk that the journal does not have. Returns the pixels that were read, by key."""
        if self._tiled is not None:
            for item, _ in chunk:
                if item.key not in self._journal:
                    self._try_one(item, partial(self._predict_tiled, self._tiled, item))
            return {}
        read: dict[str, tuple[InputImage, _ReadImage]] = {}
        for item, future in chunk:
            if future is not None:
                try:
                    read[item.key] = item, future.result()
                except Exception as error:  # of any type: the other images are predicted
                    self._on_failure(item, error)
        try:
            batch_inputs = (inputs for _, (_, inputs) in read.values())
            predictions = list(self._predictor.run(batch_inputs, batch_size=self._batch_size))
        except Exception:  # such as out of memory: predict the images one by one to find out which of them fails
            for item, (_, inputs) in read.values():
                self._try_one(item, partial(next, self._predictor.run([inputs])))
        else:
            for (item, _), instances in zip(read.values(), predictions, strict=True):
                self._store(item, instances)
        return {key: pixels for key, (_, (pixels, _)) in read.items()}

    def _read(self, item: InputImage) -> _ReadImage:
        pixels = self._predictor.pixels(item.image)
        return pixels, self._predictor.prepare(pixels)

    def _predict_tiled(self, tiled: TiledPredictor, item: InputImage) -> Instances:
        image = item.image if isinstance(item.image, dict) else self._predictor.pixels(item.image)
        return tiled(image, journal=self._journal, key=item.key)

    def _try_one(self, item: InputImage, predict: Callable[[], Instances]) -> None:
        """Stores the instances that `predict` returns for an item, or reports its error."""
        try:
            instances = predict()
        except Exception as error:
            self._on_failure(item, error)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()  # the image may have been too large
            return
        self._store(item, instances)

    def _store(self, item: InputImage, instances: Instances) -> None:
        results = to_coco(instances, None, self._category_ids)
        self._journal.add(item.key, {"size": list(instances.image_size), "results": results})
        self.predicted += 1


def failure_reason(error: Exception) -> str:
    """Returns an error's message on one line; the type is named unless it is an InputError, whose message is complete.

    Example:
        >>> failure_reason(ValueError("bad"))
        'ValueError: bad'
    """
    text = one_line(error)
    return text if isinstance(error, InputError) or not str(error).strip() else f"{type(error).__name__}: {text}"
