"""Reads the segmentation of an annotation as far as it can be read, and says what is wrong with the rest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pycocotools.mask as mask_util

Box = tuple[float, float, float, float]


@dataclass(slots=True, eq=False)
class Segmentation:
    """A mask.

    Attributes:
        form: "none", "polygons", "rle", or "unknown" for what is neither.
        polygons: the sound ones, (P, 2) float64 each, x and y in sub-pixel coordinates.
        problems: (kind of fault, message) of what is not sound.
        rle: what lies of the mask in the image, as a compressed COCO RLE; None where there is no sound mask or the image has no size.
        area: pixels of `rle`.
        box: (x0, y0, x1, y1) of `rle`'s pixels; None where it has none.
    """

    form: str
    polygons: list[np.ndarray] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)
    rle: dict[str, Any] | None = None
    area: int = 0
    box: Box | None = None


def parse_segmentation(value: Any, height: int | None, width: int | None) -> Segmentation:
    """Reads a COCO ``segmentation``; `height` and `width` are its image's, in pixels."""
    if value is None or value == []:
        return Segmentation("none")
    if isinstance(value, list):
        found = _parse_polygons(value)
        if found.polygons and height is not None and width is not None:
            found.rle = rasterise(found.polygons, height, width)
    elif isinstance(value, dict):
        found = _parse_rle(value, height, width)
    else:
        problem = f"`segmentation` is a {type(value).__name__}"
        return Segmentation("unknown", problems=[("segmentation-broken", problem)])
    if found.rle is not None:
        found.area = int(mask_util.area(found.rle))
        if found.area:
            x, y, w, h = (float(side) for side in mask_util.toBbox(found.rle))
            found.box = (x, y, x + w, y + h)
    return found


def rasterise(polygons: list[np.ndarray], height: int, width: int) -> dict[str, Any]:
    """Returns the compressed RLE of what lies of polygons in an image."""
    # The rasteriser walks along every edge: a point at 1e9 would take it hours and all memory.
    limit = np.array([width, height])
    flat = [np.clip(points, -limit, 2 * limit).ravel().tolist() for points in polygons]
    rle: dict[str, Any] = mask_util.merge(mask_util.frPyObjects(flat, height, width))
    return rle


def _parse_polygons(value: list[Any]) -> Segmentation:
    found = Segmentation("polygons")
    if all(isinstance(entry, int | float) for entry in value):
        found.problems.append(("segmentation-broken", "one flat list: put it into a list, [[x, y, x, y, ...]]"))
        value = [value]
    elif len(value) > 2 and all(isinstance(entry, list) and len(entry) == 2 for entry in value):
        found.problems.append(("segmentation-broken", "a list of points: write one flat list a polygon, [[x, y, ...]]"))
        value = [[number for point in value for number in point]]
    for number, polygon in enumerate(value):
        try:
            points = np.array(polygon)
        except ValueError:  # lists of different lengths
            points = np.empty((0, 0))
        if points.ndim != 1 or points.dtype.kind not in "iuf" or not np.isfinite(points).all():
            found.problems.append(("segmentation-broken", f"polygon {number} is not a list of finite numbers"))
        elif len(points) % 2:
            found.problems.append(("segmentation-broken", f"polygon {number} has {len(points)} numbers, an odd count"))
        elif len(different := set(zip(polygon[::2], polygon[1::2], strict=True))) < 3:
            found.problems.append(("polygon-short", f"polygon {number} has {len(different)} different points"))
        else:
            found.polygons.append(points.astype(np.float64).reshape(-1, 2))
    return found


def _parse_rle(value: dict[str, Any], height: int | None, width: int | None) -> Segmentation:
    found = Segmentation("rle")
    size, counts = value.get("size"), value.get("counts")
    if not (isinstance(size, list | tuple) and len(size) == 2 and all(isinstance(s, int) and s > 0 for s in size)):
        problem = f"the RLE's `size` is {size!r}, expected [height, width]"
        found.problems.append(("segmentation-broken", problem))
        return found
    try:
        runs = read_counts(counts)
    except ValueError as error:
        found.problems.append(("segmentation-broken", f"the RLE's `counts` are {error}"))
        return found
    if sum(runs) != size[0] * size[1]:
        problem = f"the RLE's counts add up to {sum(runs)}, not to its {size[0]} x {size[1]} pixels"
        found.problems.append(("segmentation-broken", problem))
        return found
    if height is not None and width is not None and list(size) != [height, width]:
        problem = f"an RLE of {size[0]} x {size[1]} in an image of {height} x {width} (height, width)"
        found.problems.append(("segmentation-broken", problem))
        return found
    found.rle = mask_util.frPyObjects({"size": list(size), "counts": runs}, *size)
    return found


def read_counts(counts: Any) -> list[int]:
    """Returns the run lengths of an RLE's counts, a list or COCO's compressed text.

    pycocotools trusts its input and reads and writes out of bounds when it should not, so this looks first.

    Raises:
        ValueError: with what they are instead.
    """
    if isinstance(counts, list):
        if not all(isinstance(run, int) and run >= 0 for run in counts):
            raise ValueError("not all whole numbers of at least 0")
        return counts
    if not isinstance(counts, str):
        raise ValueError(f"a {type(counts).__name__}, expected a list or a text")
    runs: list[int] = []
    value = shift = 0
    for letter in counts:
        code = ord(letter) - 48
        if not 0 <= code < 64:
            raise ValueError(f"a text with {letter!r} in it, which no RLE has")
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            if code & 16:
                value -= 1 << shift
            # From the fourth on, each is told as the difference to the one before the last.
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            if runs[-1] < 0:
                raise ValueError("a text with a negative run in it")
            value = shift = 0
    if shift:
        raise ValueError("a text that breaks off")
    return runs
