"""Run-length encodings (RLE) of binary masks in COCO's format. Only this module and :mod:`.rle_checks` know the format.

An RLE is ``{"size": [height, width], "counts": ...}``. The counts are run lengths along the columns of the mask, background first:
a list of integers (uncompressed), or a text with 5 bits of a number in each character (compressed). Compressed counts are ``str`` in
JSON files and ``bytes`` in pycocotools; the functions here take both.

pycocotools trusts its input: broken counts make it read and write out of bounds. :mod:`.rle_checks` checks RLEs that come from files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pycocotools.mask as mask_util
from numpy.typing import NDArray

from maskrcnn_ext.errors import InputError

RLE: TypeAlias = dict[str, Any]
Box: TypeAlias = tuple[float, float, float, float]

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
    return compress_runs(counts, height, width)


def segmentation_to_rle(segmentation: Any, height: int, width: int) -> RLE:
    """Converts any form of segmentation to a compressed RLE.

    Args:
        segmentation: polygons [[x, y, x, y, ...], ...] of finite numbers, of which those with fewer than three points are left out; an
            RLE, compressed or not, that :func:`.rle_checks.check_rle` accepts; or a mask (height, width).
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
        return compress_runs(counts, height, width) if isinstance(counts, list) else segmentation
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


def with_text_counts(rle: RLE) -> RLE:
    """Returns a compressed RLE whose counts are ``str``, as JSON files hold them."""
    return {**rle, "counts": counts_text(rle["counts"])}


def with_byte_counts(rle: RLE) -> RLE:
    """Returns a compressed RLE whose counts are ``bytes``, as pycocotools and Detectron2 hold them."""
    return {**rle, "counts": counts_text(rle["counts"]).encode("ascii")}


def rle_union(rles: Sequence[RLE]) -> RLE:
    """Returns the union of compressed RLEs of one size, its counts as bytes.

    Example:
        >>> rle_area(rle_union([{"size": [2, 2], "counts": b"04"}, {"size": [2, 2], "counts": b"22"}]))
        4
    """
    union: RLE = mask_util.merge(list(rles))
    return union


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


def compress_runs(counts: Any, height: int, width: int) -> RLE:
    """Compresses run lengths; the result's counts are bytes."""
    rle: RLE = mask_util.frPyObjects({"counts": counts, "size": [height, width]}, height, width)
    return rle


def counts_text(counts: Any) -> str:
    """Returns compressed counts as text. Raises TypeError for other counts."""
    if isinstance(counts, str):
        return counts
    if not isinstance(counts, bytes):
        raise TypeError(f"counts of type {type(counts).__name__} are not compressed")
    return counts.decode("latin-1")
