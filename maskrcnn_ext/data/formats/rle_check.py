"""Checks compressed RLEs by the thousand: pycocotools trusts them, and reads or writes where it should not when they are broken."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Texts that are checked at once, which bounds the memory.
_BATCH = 10_000


def find_broken_rle(texts: Sequence[str], num_pixels: Sequence[int]) -> int | None:
    """Returns the index of a text that is not the ``counts`` of a compressed COCO RLE; None where all are.

    Args:
        texts: the counts.
        num_pixels: what the runs of each have to add up to.
    """
    for start in range(0, len(texts), _BATCH):
        broken = _is_broken(texts[start : start + _BATCH], num_pixels[start : start + _BATCH])
        if broken.any():
            return start + int(broken.argmax())
    return None


def _is_broken(texts: Sequence[str], num_pixels: Sequence[int]) -> np.ndarray:
    """Returns which texts are broken, (N,) bool.

    A letter holds 5 bits, the lowest first, and whether more of its number follow. The last letter's highest bit is the sign. A number
    is a run, from the fourth on its difference to the run before the last.
    """
    joined = "".join(texts)
    ends_of_texts = np.cumsum([len(text) for text in texts])
    broken = np.array([not text or not text.isascii() for text in texts])
    if broken.any():
        return broken
    letters = np.frombuffer(joined.encode("ascii"), np.uint8).astype(np.int64) - 48
    is_last = letters & 32 == 0
    unknown = (letters < 0) | (letters > 63)
    unknown[ends_of_texts - 1] |= ~is_last[ends_of_texts - 1]
    starts_of_texts = np.append(0, ends_of_texts[:-1])
    broken |= np.logical_or.reduceat(unknown, starts_of_texts)
    if broken.any():
        return broken

    ends = np.flatnonzero(is_last)
    lengths = np.diff(ends, prepend=-1)
    first_runs = np.searchsorted(ends, starts_of_texts)
    broken |= np.maximum.reduceat(lengths, first_runs) > 7  # 35 bits: more pixels than any image has
    if broken.any():
        return broken
    place = np.arange(letters.size) - np.repeat(ends - lengths + 1, lengths)
    runs = np.add.reduceat((letters & 31) << (5 * place), ends - lengths + 1)
    runs -= np.where(letters[ends] & 16, 1 << (5 * lengths), 0)
    index = np.arange(runs.size) - np.repeat(first_runs, np.diff(first_runs, append=runs.size))
    for first in (1, 2):
        chosen = (index >= first) & (index % 2 == first % 2)
        sums = np.cumsum(runs[chosen])
        begins = np.flatnonzero(index[chosen] == first)
        before = sums[begins] - runs[chosen][begins]
        runs[chosen] = sums - np.repeat(before, np.diff(begins, append=sums.size))
    return broken | (np.minimum.reduceat(runs, first_runs) < 0) | (np.add.reduceat(runs, first_runs) != num_pixels)
