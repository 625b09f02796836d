"""Run-length encodings of label tools: CVAT's masks and Label Studio's brush strokes. Both run along the rows; COCO's is in :mod:`.rle`.

CVAT stores the lengths of the runs in a window, background first. Label Studio stores the bytes of an RGBA image of the whole image in
the format of rle-pack (github.com/thi-ng/umbrella, packages/rle-pack): 32 bits of the number of values, 5 bits of the bits a value has,
minus 1, four times 4 bits of the bits a length has, minus 1, and then blocks: one bit for a run, two bits for which of the four lengths
follows, the length minus 1, and the value of the run, or as many values as the length says.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

# Bits that a length may have in what encode_brush writes; Label Studio's own choice.
_LENGTH_BITS = (3, 4, 8, 16)
_VALUE_BITS = 8
_CHANNELS = 4


def encode_rows(mask: np.ndarray) -> list[int]:
    """Returns the lengths of the runs along the rows of a mask (h, w), background first, as CVAT stores them.

    Example:
        >>> encode_rows(np.array([[0, 1], [1, 1]])), encode_rows(np.array([[1, 1]]))
        ([1, 3], [0, 2])
    """
    flat = np.asarray(mask, bool).ravel()
    edges = np.flatnonzero(np.diff(flat, prepend=False)).tolist()
    lengths = [end - start for start, end in pairwise([0, *edges, len(flat)])]
    return lengths if len(flat) else []


def decode_rows(counts: Sequence[int], height: int, width: int) -> NDArray[np.bool_]:
    """Returns the mask (height, width) of the lengths of runs along its rows, background first.

    Raises:
        ValueError: a length is below 0, or they do not add up to height times width.

    Example:
        >>> decode_rows([1, 3], 2, 2).astype(int).tolist()
        [[0, 1], [1, 1]]
    """
    if any(count < 0 for count in counts) or sum(counts) != height * width:
        raise ValueError(f"an RLE whose lengths add up to {sum(counts)}, not to its {height} x {width} pixels")
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(height, width)


def encode_brush(mask: np.ndarray) -> list[int]:
    """Returns the bytes that Label Studio stores for a brush label whose pixels are those of a mask (H, W).

    Example:
        >>> decode_brush(encode_brush(np.array([[0, 1], [1, 1]])), 2, 2).astype(int).tolist()
        [[0, 1], [1, 1]]
    """
    bits = [f"{mask.size * _CHANNELS:032b}", f"{_VALUE_BITS - 1:05b}", *(f"{size - 1:04b}" for size in _LENGTH_BITS)]
    value = 0
    for length in encode_rows(mask):
        left = length * _CHANNELS
        while left:
            index = next((i for i, size in enumerate(_LENGTH_BITS) if left <= 1 << size), len(_LENGTH_BITS) - 1)
            part = min(left, 1 << _LENGTH_BITS[index])
            bits.append(f"1{index:02b}{part - 1:0{_LENGTH_BITS[index]}b}{value:0{_VALUE_BITS}b}")
            left -= part
        value ^= 255
    text = "".join(bits)
    return list(int(text.ljust(-(-len(text) // 8) * 8, "0"), 2).to_bytes(-(-len(text) // 8), "big"))


def decode_brush(rle: Sequence[int], height: int, width: int) -> NDArray[np.bool_]:
    """Returns the mask (height, width) of a brush label of Label Studio: the pixels that are not transparent.

    Raises:
        ValueError: these are not the bytes of an image of that size.
    """
    try:
        data = bytes(rle) if isinstance(rle, list | tuple) else None
    except (TypeError, ValueError):
        data = None
    if data is None:
        raise ValueError("a brush RLE that is not a list of bytes")
    position = 0

    def read(count: int) -> int:
        nonlocal position
        first, last = position // 8, -(-(position + count) // 8)
        if last > len(data):
            raise ValueError("a brush RLE that is cut off")
        position += count
        return (int.from_bytes(data[first:last], "big") >> (last * 8 - position)) & ((1 << count) - 1)

    number = read(32)
    if number != height * width * _CHANNELS:
        raise ValueError(f"a brush RLE of {number} values, not of {height} x {width} x {_CHANNELS}")
    value_bits = read(5) + 1
    length_bits = [read(4) + 1 for _ in range(4)]
    values = np.zeros(number, np.bool_)
    start = 0
    while start < number:
        is_run = read(1)
        end = start + read(length_bits[read(2)]) + 1
        if end > number:
            raise ValueError("a brush RLE with more values than it says")
        if is_run:
            values[start:end] = read(value_bits) > 0
        else:
            values[start:end] = [read(value_bits) > 0 for _ in range(start, end)]
        start = end
    return values.reshape(height, width, _CHANNELS)[:, :, -1]
