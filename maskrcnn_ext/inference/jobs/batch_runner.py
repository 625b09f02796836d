"""Predicts images in true batches and keeps what is found in a journal, past images that fail."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
import torch
from detectron2.structures import Instances

from maskrcnn_ext.inference.jobs.journal import Journal, Journals
from maskrcnn_ext.inference.predictor import Predictor
from maskrcnn_ext.inference.results import to_coco
from maskrcnn_ext.inference.sources import Item
from maskrcnn_ext.inference.tiling.predictor import TiledPredictor

# Batches' worth of images that are looked at together, so that those of one size meet; as many are read ahead.
_CHUNK = 4
_READERS = 4
_Read = tuple[np.ndarray, dict[str, Any]]  # pixels, and what the model takes
# Items, with those that are being read.
Chunk: TypeAlias = list[tuple[Item, "Future[_Read] | None"]]


class Finder:
    """Adds to a journal what it lacks of items.

    Attributes:
        predicted: images that it has predicted.
    """

    def __init__(
        self,
        predictor: Predictor,
        journal: Journal | Journals,
        fail: Callable[[Item, Exception], None],
        *,
        category_ids: Sequence[Any],
        batch_size: int = 1,
        tiled: TiledPredictor | None = None,
    ) -> None:
        """Begins.

        Args:
            predictor: the model.
            journal: gets ``{"size": [height, width], "results": COCO's results without image_id}`` under an item's key.
            fail: is told of an item that cannot be read or predicted, and why.
            category_ids: the id of every class in the results.
            batch_size: images that are predicted at once where they have one size.
            tiled: predicts instead of `predictor` itself.
        """
        self.predicted = 0
        self._predictor = predictor
        self._journal = journal
        self._fail = fail
        self._category_ids = category_ids
        self._batch_size = batch_size
        self._tiled = tiled

    def chunks(self, items: Iterable[Item]) -> Iterator[Chunk]:
        """Cuts the items into chunks, and reads each while the one before it is predicted; what need not be read has no future."""
        items = iter(items)
        with ThreadPoolExecutor(_READERS) as readers:
            ahead: Chunk = []
            while chunk := list(islice(items, _CHUNK * self._batch_size)):
                begun = [
                    (item, None if self._tiled or item.key in self._journal else readers.submit(self._read, item))
                    for item in chunk
                ]
                if ahead:
                    yield ahead
                ahead = begun
            if ahead:
                yield ahead

    def _read(self, item: Item) -> _Read:
        pixels = self._predictor.pixels(item.image)
        return pixels, self._predictor.prepare(pixels)

    def find(self, chunk: Chunk) -> dict[str, np.ndarray]:
        """Adds to the journal what it lacks of the chunk, as far as it can be read and predicted; returns pixels by key."""
        if self._tiled is not None:
            for item, _ in chunk:
                if item.key not in self._journal:
                    self._try(item, partial(self._predict_tiled, self._tiled, item))
            return {}
        read: dict[str, tuple[Item, _Read]] = {}
        for item, reading in chunk:
            if reading is not None:
                try:
                    read[item.key] = item, reading.result()
                except Exception as error:  # whatever is wrong with one image, the others go on
                    self._fail(item, error)
        try:
            inputs = (inputs for _, (_, inputs) in read.values())
            found = list(self._predictor.run(inputs, batch_size=self._batch_size))
        except Exception:  # such as too little memory for a batch: which image is it?
            for item, (_, alone) in read.values():
                self._try(item, partial(next, self._predictor.run([alone])))
        else:
            for (item, _), own in zip(read.values(), found, strict=True):
                self._keep(item, own)
        return {key: pixels for key, (_, (pixels, _)) in read.items()}

    def _predict_tiled(self, tiled: TiledPredictor, item: Item) -> Instances:
        image = item.image if isinstance(item.image, dict) else self._predictor.pixels(item.image)
        return tiled(image, journal=self._journal, key=item.key)

    def _try(self, item: Item, predict: Callable[[], Instances]) -> None:
        """Keeps what a function finds in an item, or why it fails."""
        try:
            found = predict()
        except Exception as error:
            self._fail(item, error)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()  # of an image that was too large
            return
        self._keep(item, found)

    def _keep(self, item: Item, found: Instances) -> None:
        results = to_coco(found, None, self._category_ids)
        self._journal.add(item.key, {"size": list(found.image_size), "results": results})
        self.predicted += 1
