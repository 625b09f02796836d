"""COCO results that stay in their file: an image's detections are read when they are needed, so that memory does not hold all masks."""

from __future__ import annotations

import json
import mmap
import re
from array import array
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np

from maskrcnn_ext.common.text import first_line
from maskrcnn_ext.errors import InputError

# Bytes of a first try to parse an entry, and entries that are checked together.
_PIECE = 2**12
_CHUNK = 1000
_SPACE = re.compile(rb"[ \t\r\n]*")
_KEYS = ("bbox", "segmentation", "keypoints")


@dataclass
class Columns:
    """The fields of N results that matching needs beside their shapes.

    Attributes:
        image_ids: (N).
        category_ids: (N).
        scores: (N).
        mask_scores: (N), the scores of the boxes where results have no mask score.
        lacking: for ``bbox``, ``segmentation`` and ``keypoints`` the index of the first result without the field; None if all have it.
        num_keypoints: the different numbers of keypoints of results.
    """

    image_ids: list[Any] = field(default_factory=list)
    category_ids: list[Any] = field(default_factory=list)
    scores: array[float] = field(default_factory=lambda: array("d"))
    mask_scores: array[float] = field(default_factory=lambda: array("d"))
    lacking: dict[str, int | None] = field(default_factory=lambda: dict.fromkeys(_KEYS))
    num_keypoints: set[int] = field(default_factory=set)

    def add(self, results: Sequence[dict[str, Any]]) -> None:
        """Appends results."""
        for found in results:
            for key in _KEYS:
                if self.lacking[key] is None and not found.get(key):
                    self.lacking[key] = len(self.scores)
            if found.get("keypoints"):
                self.num_keypoints.add(len(found["keypoints"]) // 3)
            self.image_ids.append(found["image_id"])
            self.category_ids.append(found["category_id"])
            self.scores.append(found["score"])
            self.mask_scores.append(found.get("mask_score", found["score"]))


class StoredResults(Sequence[dict[str, Any]]):
    """The results in a file as a sequence; each use of one reads it again.

    Attributes:
        columns: images, classes and scores, in memory.
    """

    def __init__(
        self,
        file: Path,
        check: Callable[[Sequence[Any], int], list[dict[str, Any]]],
        complete: Callable[[dict[str, Any]], dict[str, Any]],
    ) -> None:
        """Reads the file once.

        Args:
            file: COCO results.
            check: returns entries, completed, of which the first has the given number; raises InputError if one is wrong.
            complete: returns an entry, which was checked, completed.

        Raises:
            InputError: the file is no list in JSON, or as `check`.
        """
        self._check, self._complete = check, complete
        self.columns = Columns()
        self._starts, self._ends = array("q"), array("q")
        with file.open("rb") as stream:
            self._content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        chunk: list[Any] = []
        for start, end, value in _entries(self._content, file):
            self._starts.append(start)
            self._ends.append(end)
            chunk.append(value)
            if len(chunk) == _CHUNK:
                self._add(chunk)
                chunk = []
        self._add(chunk)

    def _add(self, chunk: list[Any]) -> None:
        self.columns.add(self._check(chunk, len(self.columns.scores)))

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...

    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        found: dict[str, Any] = json.loads(self._content[self._starts[index] : self._ends[index]])
        return self._complete(found)


def columns_of(results: Sequence[dict[str, Any]]) -> Columns:
    """Returns the columns of results, which stored ones have already.

    Example:
        >>> columns_of([{"image_id": 7, "category_id": 1, "score": 0.5, "bbox": [0, 0, 1, 1]}]).lacking
        {'bbox': None, 'segmentation': 0, 'keypoints': 0}
    """
    if isinstance(results, StoredResults):
        return results.columns
    columns = Columns()
    columns.add(results)
    return columns


def scores_of(columns: Columns, *, of_masks: bool) -> np.ndarray:
    """Returns the scores (N) float64 that rank boxes, or masks."""
    return np.array(columns.mask_scores if of_masks else columns.scores, dtype=np.float64)


def _entries(content: mmap.mmap, file: Path) -> Iterator[tuple[int, int, Any]]:
    """Yields start and end in the file of each entry of a list in JSON, and its value."""

    def mark(place: int) -> tuple[bytes, int]:
        """Returns the next character that is no space, and the place of the one after it."""
        between = _SPACE.match(content, place)
        place = between.end() if between else place
        return content[place : place + 1], place + 1

    found, place = mark(len(BOM_UTF8) if content[: len(BOM_UTF8)] == BOM_UTF8 else 0)
    if found != b"[":
        raise InputError(f"{file}: not COCO results, which are a list of detections")
    if mark(place)[0] == b"]":
        found, place = mark(place)
    while found != b"]":
        start = mark(place)[1] - 1
        value, place = _decode(content, start, file)
        yield start, place, value
        found, place = mark(place)
        if found not in (b",", b"]"):
            raise InputError(f"{file}: not JSON: a comma is expected at byte {place - 1}")
    if mark(place)[0]:
        raise InputError(f"{file}: not JSON: there is more after the list, at byte {place}")


def _decode(content: mmap.mmap, start: int, file: Path) -> tuple[Any, int]:
    """Returns the value in JSON that begins at a byte, and its end."""
    decoder, size = json.JSONDecoder(), _PIECE
    while True:
        # One character for each byte, so that places are the same.
        text = content[start : start + size].decode("latin-1")
        try:
            value, end = decoder.raw_decode(text)
            return (value if text[:end].isascii() else json.loads(content[start : start + end])), start + end
        except (ValueError, RecursionError) as error:
            if start + size >= len(content) or not isinstance(error, json.JSONDecodeError):
                raise InputError(f"{file}: not JSON at byte {start} ({first_line(error)})") from error
            size *= 2  # the piece may have ended within the value
