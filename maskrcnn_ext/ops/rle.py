"""Run-length encodings (RLE) of binary masks in COCO's format. No other module of the package knows the format.

An RLE is ``{"size": [height, width], "counts": ...}``. The counts are run lengths along the columns of the mask, background first:
a list of integers (uncompressed), or a text with 5 bits of a number in each character (compressed). Compressed counts are ``str`` in
JSON files and ``bytes`` in pycocotools; the functions here take both.

pycocotools trusts its input: broken counts make it read and write out of bounds. Check RLEs that come from files first, with
:func:`check_rle` or, many at once, :func:`find_broken_rle`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pycocotools.mask as mask_util
from numpy.typing import NDArray

from maskrcnn_ext.errors import InputError

RLE: TypeAlias = dict[str, Any]
Box: TypeAlias = tuple[float, float, float, float]

# RLEs that find_broken_rle checks at once, which bounds its memory.
_BATCH = 10_000
# A run of more characters, 35 bits, is longer than any image has pixels.
_LONGEST_NUMBER = 7
# Of an image whose masks are RLEs: the run lengths of pycocotools have 32 bits.
MAX_PIXELS = 2**32
# pycocotools keeps 5 points per pixel of an outline in memory: 1 GB for this length, and it crashes without memory.
_LONGEST_OUTLINE = 10_000_000
# Distance from the outline, as a share of the image's diagonal, within which a pixel belongs to the boundary (Boundary IoU, section 4).
_BOUNDARY_RATIO = 0.02


class LabelMask(NamedTuple):
    """The pixels of one number in a label image.

    Attributes:
        value: the number.
        box: tight box x0, y0, x1, y1 in pixels, x1 and y1 exclusive.
        rle: the compressed RLE, its counts as text.
    """

    value: int
    box: Box
    rle: RLE


def encode_mask(mask: np.ndarray) -> RLE:
    """Encodes a mask.

    Args:
        mask: (height, width), bool or 0 and 1.

    Returns:
        A compressed RLE, its counts as text.

    Example:
        >>> encode_mask(np.array([[0, 1], [0, 1]]))
        {'size': [2, 2], 'counts': '22'}
    """
    return with_text_counts(mask_util.encode(np.asfortranarray(mask, dtype=np.uint8)))


def encode_labels(labels: np.ndarray) -> list[LabelMask]:
    """Encodes each object of a label image. The time depends on the number of object pixels, not on objects times image pixels.

    Args:
        labels: (height, width) integers, the number of the object that a pixel belongs to, or 0.

    Returns:
        One entry per number, sorted by number.

    Example:
        >>> encode_labels(np.array([[0, 7], [0, 7]]))
        [LabelMask(value=7, box=(1.0, 0.0, 2.0, 2.0), rle={'size': [2, 2], 'counts': '22'})]
    """
    height, width = labels.shape
    by_column = labels.ravel(order="F")
    pixels = np.flatnonzero(by_column)
    values = by_column[pixels]
    order = np.argsort(values, kind="stable")
    pixels, values = pixels[order], values[order]
    found, starts = np.unique(values, return_index=True)
    masks = []
    for value, inside in zip(found, np.split(pixels, starts[1:]), strict=False):
        rows = inside % height
        box = (inside[0] // height, rows.min(), inside[-1] // height + 1, rows.max() + 1)
        x0, y0, x1, y1 = (float(edge) for edge in box)
        gaps = np.flatnonzero(np.diff(inside) != 1)
        first, last = inside[np.append(0, gaps + 1)], inside[np.append(gaps, -1)]
        rle = encode_edges(np.stack([first, last + 1], axis=1).ravel(), (height, width))
        masks.append(LabelMask(int(value), (x0, y0, x1, y1), with_text_counts(rle)))
    return masks


def encode_edges(edges: NDArray[np.int64], size: tuple[int, int]) -> RLE:
    """Encodes a mask that is given by the edges of its runs.

    Args:
        edges: (2 S) start and end of each of S segments, in turn and ascending, as column-major positions ``x * height + y``. A segment
            may start where the last one ended.
        size: height and width of the image in pixels.

    Returns:
        A compressed RLE, its counts as bytes.
    """
    height, width = size
    if len(edges):
        gaps = edges[1:-1].reshape(-1, 2)
        gaps = gaps[gaps[:, 0] < gaps[:, 1]]
        edges = np.concatenate([edges[:1], gaps.ravel(), edges[-1:]])
    counts = np.diff(edges, prepend=0, append=height * width)
    if len(edges) and counts[-1] == 0:
        counts = counts[:-1]
    return _compress(counts, height, width)


def segmentation_to_rle(segmentation: Any, height: int, width: int) -> RLE:
    """Converts any form of segmentation to a compressed RLE.

    Args:
        segmentation: polygons [[x, y, x, y, ...], ...] of finite numbers, of which those with fewer than three points are left out; an
            RLE, compressed or not, that :func:`check_rle` accepts; or a mask (height, width).
        height: height of the image in pixels.
        width: width of the image in pixels.

    Raises:
        InputError: the image has too many pixels for an RLE, or an outline is too long to draw.

    Example:
        >>> square = [[1, 1, 3, 1, 3, 3, 1, 3]]
        >>> rle_area(segmentation_to_rle(square, height=4, width=5))
        4
    """
    if isinstance(segmentation, dict):
        counts = segmentation["counts"]
        return _compress(counts, height, width) if isinstance(counts, list) else segmentation
    if isinstance(segmentation, np.ndarray):
        return encode_mask(segmentation)
    if height * width >= MAX_PIXELS:
        raise InputError(
            f"an image of {width} x {height} has more pixels than a mask holds ({MAX_PIXELS:,}): cut it into tiles"
        )
    # The rasteriser walks along each edge pixel by pixel: a vertex at 1e9 would take hours and all memory.
    low, high = -height - width, 2 * (height + width)
    # Fewer than 6 numbers are no polygon, and pycocotools would take 4 numbers for a box.
    polygons = [
        polygon if low <= min(polygon) and max(polygon) <= high else np.clip(polygon, low, high).tolist()
        for polygon in segmentation
        if len(polygon) >= 6
    ]
    if not polygons:
        return encode_edges(np.empty(0, np.int64), (height, width))
    for polygon in polygons:
        check_outline_length(polygon, height, width)
    rle: RLE = mask_util.merge(mask_util.frPyObjects(polygons, height, width))
    return rle


def check_outline_length(polygon: Sequence[float], height: int, width: int) -> None:
    """Raises if a polygon [x, y, x, y, ...] inside or near an image is too long to draw.

    Raises:
        InputError: it is.

    Example:
        >>> check_outline_length([1, 1, 3, 1, 3, 3, 1, 3], height=4, width=5)
    """
    if len(polygon) * 3 * (height + width) <= _LONGEST_OUTLINE:  # quick, and true for almost all polygons
        return
    points = np.asarray(polygon, np.float64).reshape(-1, 2)
    length = np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum()  # pixels that the rasteriser walks
    if length > _LONGEST_OUTLINE:
        raise InputError(
            f"an outline of {len(points):,} points is {length:,.0f} pixels long, more than {_LONGEST_OUTLINE:,}: draw it with fewer points"
        )


def decode_rle(rle: RLE) -> NDArray[np.uint8]:
    """Decodes a compressed RLE.

    Returns:
        (height, width) uint8, 0 or 1, column-major in memory.

    Example:
        >>> decode_rle({"size": [2, 2], "counts": "22"}).tolist()
        [[0, 1], [0, 1]]
    """
    mask: NDArray[np.uint8] = mask_util.decode(rle)
    return mask


def decode_counts(counts: list[int] | str | bytes) -> NDArray[np.int64]:
    """Decodes counts to run lengths.

    Args:
        counts: of an RLE, compressed or not.

    Raises:
        ValueError: they are not the counts of an RLE.

    Example:
        >>> decode_counts("22").tolist()
        [2, 2]
    """
    if isinstance(counts, list):
        if not all(isinstance(run, int | float) and 0 <= run < 2**63 and run == run // 1 for run in counts):
            raise ValueError("an RLE whose `counts` are not all whole numbers of at least 0")
        return np.array(counts, np.int64)
    if not isinstance(counts, str | bytes):
        raise ValueError(f"an RLE whose `counts` are of type {type(counts).__name__}, expected a list or a text")
    text = _text(counts)
    values = np.frombuffer(text.encode("ascii", "replace"), np.uint8).astype(np.int64) - 48
    if not text.isascii() or ((values < 0) | (values > 63)).any():
        character = next(letter for letter in text if not "0" <= letter <= "o")
        raise ValueError(f"an RLE whose `counts` are broken: no RLE has the character {character!r}")
    if not len(values) or values[-1] & 32:
        raise ValueError("an RLE whose `counts` are cut off")
    runs, _, lengths = _decode_numbers(values)
    if lengths.max() > _LONGEST_NUMBER:
        raise ValueError("an RLE whose `counts` are broken: a run is longer than any image")
    for first in (1, 2):
        runs[first::2] = np.cumsum(runs[first::2])
    if (runs < 0).any():
        raise ValueError("an RLE whose `counts` are broken: a run is negative")
    return runs


def check_rle(rle: Any, height: int | None = None, width: int | None = None) -> RLE:
    """Checks an RLE that comes from a file and returns it compressed.

    Args:
        rle: expected to be an RLE, compressed or not.
        height: height of its image in pixels; None if it is unknown.
        width: width of its image in pixels; None if it is unknown.

    Raises:
        ValueError: it is broken, or of another size than its image. The message completes "annotation 7 has ...".

    Example:
        >>> check_rle({"size": [2, 2], "counts": [2, 1]})
        Traceback (most recent call last):
        ValueError: an RLE whose `counts` add up to 3, not to its 2 x 2 pixels
    """
    if not isinstance(rle, dict):
        raise ValueError(f"an RLE of type {type(rle).__name__}, expected a mapping with `size` and `counts`")
    size, counts = rle.get("size"), rle.get("counts")
    if not (isinstance(size, list | tuple) and len(size) == 2 and all(map(_is_side, size))):
        raise ValueError(f"an RLE of size {size!r:.100}, expected [height, width]")
    size = [int(size[0]), int(size[1])]
    if height is not None and width is not None and size != [height, width]:
        raise ValueError(f"an RLE of size {size}, but its image is {height} x {width} (height, width)")
    runs = decode_counts(counts)  # type: ignore[arg-type]
    if runs.sum() != math.prod(size):
        raise ValueError(f"an RLE whose `counts` add up to {runs.sum()}, not to its {size[0]} x {size[1]} pixels")
    return _compress(runs, *size) if isinstance(counts, list) else {"size": size, "counts": counts}


def check_rle_parts(parts: list[Any], height: int, width: int) -> RLE:
    """Checks a list of RLEs and polygons, the parts of one object, and returns their union, compressed.

    Args:
        parts: each expected to be an RLE or a polygon [x, y, x, y, ...].
        height: height of the image in pixels.
        width: width of the image in pixels.

    Raises:
        ValueError: a part is broken; the message completes "annotation 7 has ...".

    Example:
        >>> left, right = {"size": [2, 2], "counts": [0, 2, 2]}, {"size": [2, 2], "counts": [2, 2]}
        >>> rle_area(check_rle_parts([left, right], 2, 2))
        4
    """
    polygons = [part for part in parts if isinstance(part, list)]
    if not all(isinstance(value, int | float) for polygon in polygons for value in polygon):
        raise ValueError("a polygon that is not a list of numbers")
    rles = [check_rle(part, height, width) for part in parts if not isinstance(part, list)]
    union: RLE = mask_util.merge([*rles, segmentation_to_rle(polygons, height, width)])
    return union


def find_broken_rle(rles: Sequence[RLE]) -> int | None:
    """Finds an RLE whose counts are broken or do not cover its size. Thousands take about as long as :func:`check_rle` of a few.

    Args:
        rles: compressed RLEs, each with a valid size.

    Returns:
        The index of a broken RLE; None if all are valid. :func:`check_rle` says what is wrong with it.

    Raises:
        TypeError: an RLE is not compressed.

    Example:
        >>> find_broken_rle([{"size": [2, 2], "counts": "22"}, {"size": [2, 2], "counts": "2"}])
        1
    """
    for start in range(0, len(rles), _BATCH):
        batch = rles[start : start + _BATCH]
        is_broken = _are_broken([_text(rle["counts"]) for rle in batch], [math.prod(rle["size"]) for rle in batch])
        if is_broken.any():
            return start + int(is_broken.argmax())
    return None


def with_text_counts(rle: RLE) -> RLE:
    """Returns a compressed RLE whose counts are ``str``, as JSON files hold them."""
    return {**rle, "counts": _text(rle["counts"])}


def with_byte_counts(rle: RLE) -> RLE:
    """Returns a compressed RLE whose counts are ``bytes``, as pycocotools and Detectron2 hold them."""
    return {**rle, "counts": _text(rle["counts"]).encode("ascii")}


def rle_area(rle: RLE) -> int:
    """Returns the number of pixels of a compressed RLE."""
    # pycocotools 2.0.11 raises an OverflowError for 256 RLEs and more in one call, so callers loop.
    return int(mask_util.area(rle))


def rle_boxes(rles: Sequence[RLE]) -> NDArray[np.float64]:
    """Returns the tight boxes of R compressed RLEs.

    Returns:
        (R, 4) x0, y0, x1, y1 in pixels of the image, x1 and y1 exclusive; zeros for an empty mask.
    """
    boxes = np.asarray(mask_util.toBbox(list(rles)), dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def rle_box(rle: RLE) -> Box:
    """Returns the tight box of a compressed RLE; see :func:`rle_boxes`.

    Example:
        >>> rle_box({"size": [2, 2], "counts": "22"})
        (1.0, 0.0, 2.0, 2.0)
    """
    x0, y0, x1, y1 = rle_boxes([rle])[0].tolist()
    return x0, y0, x1, y1


def pairwise_iou(
    detections: Sequence[RLE] | np.ndarray, objects: Sequence[RLE] | np.ndarray, crowd: Sequence[bool] | None = None
) -> NDArray[np.float64]:
    """Computes the intersection over union of D detections and G objects.

    Args:
        detections: compressed RLEs, or boxes (D, 4) float64, x, y, width, height.
        objects: the same of the objects.
        crowd: (G) True for objects that are groups: then the union is the detection's area alone. None if there are no groups.

    Returns:
        (D, G).

    Example:
        >>> pairwise_iou(np.array([[0.0, 0, 2, 2]]), np.array([[0.0, 0, 2, 1], [5, 5, 1, 1]]))
        array([[0.5, 0. ]])
    """
    shape = (len(detections), len(objects))
    if 0 in shape:
        return np.zeros(shape)
    overlaps: NDArray[np.float64] = mask_util.iou(
        detections, objects, [0] * len(objects) if crowd is None else [int(is_group) for is_group in crowd]
    )
    return overlaps


def rle_boundary(rle: RLE) -> RLE:
    """Computes the band inside a mask's outline (Boundary IoU, CVPR 2021, arXiv:2103.16562, section 4).

    Its width is 2 % of the image's diagonal. The edge of the image is part of the outline.

    Args:
        rle: a compressed RLE.

    Returns:
        The band as a compressed RLE.
    """
    import cv2

    height, width = rle["size"]
    distance = max(1, round(_BOUNDARY_RATIO * float(np.hypot(height, width))))
    x0, y0, x1, y1 = (int(edge) for edge in rle_box(rle))
    pixels = decode_rle(rle)
    # Only the box is eroded; a rim of zeros makes its edge, and the image's, an outline.
    eroded = cv2.erode(np.pad(pixels[y0:y1, x0:x1], 1), np.ones((3, 3), np.uint8), iterations=distance)
    pixels[y0:y1, x0:x1] -= eroded[1:-1, 1:-1]
    return encode_mask(pixels)


def _compress(counts: Any, height: int, width: int) -> RLE:
    """Compresses run lengths; the result's counts are bytes."""
    rle: RLE = mask_util.frPyObjects({"counts": counts, "size": [height, width]}, height, width)
    return rle


def _is_side(value: Any) -> bool:
    """Whether a value is a positive whole number of pixels."""
    return isinstance(value, int | float | np.integer) and bool(0 < value < 2**32) and int(value) == value


def _text(counts: Any) -> str:
    """Returns compressed counts as text. Raises TypeError for other counts."""
    if isinstance(counts, str):
        return counts
    if not isinstance(counts, bytes):
        raise TypeError(f"counts of type {type(counts).__name__} are not compressed")
    return counts.decode("latin-1")


def _decode_numbers(values: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Decodes the numbers in compressed counts.

    A character holds 5 bits of a number, the lowest first, and a flag that more follow. The highest bit of the last character is the
    sign. The first three numbers of an RLE are runs, each later one is the difference to the run before the last.

    Args:
        values: the characters' codes minus 48, 0 to 63; the last one ends a number.

    Returns:
        The numbers, the index of each one's last character, and its length in characters.
    """
    ends = np.flatnonzero(values & 32 == 0)
    lengths = np.diff(ends, prepend=-1)
    starts = ends - lengths + 1
    position = np.arange(len(values)) - np.repeat(starts, lengths)
    numbers: NDArray[np.int64] = np.add.reduceat((values & 31) << (5 * position), starts)
    numbers -= np.where(values[ends] & 16, np.int64(1) << (5 * lengths), 0)
    return numbers, ends, lengths


def _are_broken(texts: Sequence[str], num_pixels: Sequence[int]) -> NDArray[np.bool_]:
    """Returns which texts are not the counts of RLEs with so many pixels, (N) bool. Only the first kind of fault is complete."""
    ends_of_texts = np.cumsum([len(text) for text in texts])
    broken = np.array([not text or not text.isascii() for text in texts])
    if broken.any():
        return broken
    values = np.frombuffer("".join(texts).encode("ascii"), np.uint8).astype(np.int64) - 48
    starts_of_texts = np.append(0, ends_of_texts[:-1])
    unknown = (values < 0) | (values > 63)
    unknown[ends_of_texts - 1] |= values[ends_of_texts - 1] & 32 != 0
    broken |= np.logical_or.reduceat(unknown, starts_of_texts)
    if broken.any():
        return broken

    runs, ends, lengths = _decode_numbers(values)
    first_runs = np.searchsorted(ends, starts_of_texts)
    broken |= np.maximum.reduceat(lengths, first_runs) > _LONGEST_NUMBER
    if broken.any():
        return broken
    index = np.arange(runs.size) - np.repeat(first_runs, np.diff(first_runs, append=runs.size))
    for first in (1, 2):
        chosen = (index >= first) & (index % 2 == first % 2)
        sums = np.cumsum(runs[chosen])
        begins = np.flatnonzero(index[chosen] == first)
        before = sums[begins] - runs[chosen][begins]
        runs[chosen] = sums - np.repeat(before, np.diff(begins, append=sums.size))
    return broken | (np.minimum.reduceat(runs, first_runs) < 0) | (np.add.reduceat(runs, first_runs) != num_pixels)
