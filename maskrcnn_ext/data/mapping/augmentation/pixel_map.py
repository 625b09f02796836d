"""A Detectron2 transform that is defined by the source position of every output pixel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from detectron2.data.transforms import CropTransform, HFlipTransform, Transform

from maskrcnn_ext.errors import InputError

_TOLERANCE = 0.5  # pixels of the output: the largest error of a projective fit that still transforms polygons
_EDGE = 0.6  # pixels of the input: closer to the border, interpolation may have clamped the coordinates
_SAMPLES = 503  # number of points of a fit; a prime, so that they do not all fall into one column
_REACH = 2  # pixels of the input: the search radius for the output pixel that shows a point
_OUTSIDE = -1.0


class PixelMapTransform(Transform):
    """Transforms masks, boxes and points by the map that transformed an image's pixels.

    Masks are sampled through the map, so they agree with the pixels for every map. If the map is affine or projective, which a fit finds
    out, points and polygons are transformed exactly. Otherwise (elastic, grid or lens distortion) a point moves to the pixel that shows
    it, a box to the box of the pixels that show its inside, and polygons are not supported.
    """

    def __init__(self, source: np.ndarray, result: np.ndarray, sources: np.ndarray, projection: Projection) -> None:
        """Stores the image before and after, and its map; use :func:`transform_from_map` to build one."""
        # The bases' __init__ is not called: that of HFlipTransform needs a width that is not used here.
        self._source, self._result = source, result
        self.sources = sources
        self.projection = projection.matrix
        self.bends = projection.bends
        self.input_size: tuple[int, int] = (source.shape[0], source.shape[1])

    @property
    def output_size(self) -> tuple[int, int]:
        """(H, W) of the output."""
        height, width = self.sources.shape[:2]
        return height, width

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Returns the transformed image. Another image of that size is sampled through the map, without changes of colour."""
        return self._result if img is self._source else self.apply_segmentation(img)

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Samples the nearest pixels of (H, W) or (H, W, C); 0 for output pixels that show nothing of the input."""
        height, width = self.input_size
        flat = segmentation.reshape(height * width, *segmentation.shape[2:])
        gathered: np.ndarray = np.concatenate([flat, np.zeros_like(flat[:1])])[self._index]
        return gathered

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Transforms points (N, 2). Without a projection, points that the output does not show get coordinates outside of it."""
        coords = np.asarray(coords, dtype=np.float64).reshape(-1, 2)
        if self.projection is None:
            return self._look_up(coords)
        return _project(self.projection, coords)

    def apply_box(self, box: np.ndarray) -> np.ndarray:
        """Transforms boxes (N, 4) to the box of their corners; without a projection, to that of the pixels that show their inside."""
        if self.projection is not None:
            corners: np.ndarray = super().apply_box(box)
            return corners
        moved = np.zeros((len(box), 4))
        xs, ys = self.sources[..., 0] + 0.5, self.sources[..., 1] + 0.5
        for target, (x0, y0, x1, y1) in zip(moved, np.asarray(box), strict=True):
            shown = (xs >= x0) & (xs <= x1) & (ys >= y0) & (ys <= y1)  # NaN is in no box
            if shown.any():
                columns, rows = np.flatnonzero(shown.any(axis=0)), np.flatnonzero(shown.any(axis=1))
                target[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        return moved

    def apply_polygons(self, polygons: list[np.ndarray]) -> list[np.ndarray]:
        """Transforms polygons and clips them to the output.

        Raises:
            InputError: the map bends straight lines.
        """
        if self.bends:
            raise InputError(
                "an augmentation that bends lines (elastic, grid or lens distortion, mirrored borders) cannot move polygons: "
                "set dataloader.train.mapper.instance_mask_format=bitmask and keep the masks as RLE, or leave it out"
            )
        if self.projection is None:
            return []
        height, width = self.output_size
        moved = [self.apply_coords(polygon) for polygon in polygons]
        cut: list[np.ndarray] = CropTransform(0, 0, width, height).apply_polygons(moved)
        return cut

    def inverse(self) -> Transform:
        """Is not supported, because pixels outside of the output are lost.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("a pixel map cannot be inverted")

    @cached_property
    def _index(self) -> np.ndarray:
        """(H_out, W_out): the flat index of the nearest input pixel; one past the last for output pixels without a source."""
        height, width = self.input_size
        inside = ~np.isnan(self.sources[..., 0])
        xs, ys = np.rint(np.where(inside[..., None], self.sources, 0)).astype(np.int32).transpose(2, 0, 1)
        return np.where(inside, ys.clip(0, height - 1) * width + xs.clip(0, width - 1), height * width)

    def _look_up(self, coords: np.ndarray) -> np.ndarray:
        height, width = self.input_size
        rows, columns = np.nonzero(~np.isnan(self.sources[..., 0]))
        xs, ys = np.rint(self.sources[rows, columns]).astype(np.int32).T
        shown_at = np.full((height, width), -1)
        shown_at[ys.clip(0, height - 1), xs.clip(0, width - 1)] = np.arange(len(rows))
        moved = np.full((len(coords), 2), _OUTSIDE)
        for target, point in zip(moved, coords - 0.5, strict=True):
            x, y = np.rint(point).astype(int)
            near = shown_at[max(y - _REACH, 0) : max(y + _REACH + 1, 0), max(x - _REACH, 0) : max(x + _REACH + 1, 0)]
            found = near[near >= 0]
            if len(found):
                distances = np.abs(self.sources[rows[found], columns[found]] - point).sum(axis=1)
                nearest = found[distances.argmin()]
                target[:] = columns[nearest] + 0.5, rows[nearest] + 0.5
        return moved


class MirroringPixelMapTransform(PixelMapTransform, HFlipTransform):
    """A pixel map that mirrors the image along either axis.

    It is an ``HFlipTransform`` only because Detectron2 exchanges left and right keypoints for that class; all its methods use the map.
    """


@dataclass(frozen=True)
class Projection:
    """The projective transform of a map, in Detectron2's coordinates (the first pixel's centre is at 0.5).

    Attributes:
        matrix: (3, 3), from input to output; None if the map is not projective or the output shows too little of the input.
        bends: whether the map is not projective.
    """

    matrix: np.ndarray | None
    bends: bool


def transform_from_map(source: np.ndarray, result: np.ndarray, sources: np.ndarray) -> PixelMapTransform:
    """Returns the transform that turned an image into another.

    Args:
        source: (H, W) or (H, W, C), the image before.
        result: (H_out, W_out) or (H_out, W_out, C), the image after.
        sources: (H_out, W_out, 2) float32, the position (x, y) in `source` that every pixel of `result` shows; the first pixel's centre
            is at 0. NaN for pixels that show nothing of `source`.
    """
    projection = find_projection(*inner_points(sources, (source.shape[0], source.shape[1])))
    mirrors = projection.matrix is not None and np.linalg.det(projection.matrix) < 0
    return (MirroringPixelMapTransform if mirrors else PixelMapTransform)(source, result, sources, projection)


def inner_points(sources: np.ndarray, input_size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Returns corresponding points of input and output, each (P, 2), in Detectron2's coordinates; none near the input's border."""
    height, width = input_size
    x, y = sources[..., 0], sources[..., 1]
    inner = (x > _EDGE) & (x < width - 1 - _EDGE) & (y > _EDGE) & (y < height - 1 - _EDGE)  # NaN is nowhere inside
    indices = np.flatnonzero(inner)
    if len(indices) > _SAMPLES:
        indices = indices[np.linspace(0, len(indices) - 1, _SAMPLES).astype(int)]
    rows, columns = np.unravel_index(indices, inner.shape)
    return sources[rows, columns].astype(np.float64) + 0.5, np.stack([columns, rows], axis=1) + 0.5


def find_projection(source: np.ndarray, target: np.ndarray) -> Projection:
    """Fits an affine matrix to corresponding points (P, 2), or a projective one if no affine matrix fits."""
    if len(source) < 4 or np.linalg.matrix_rank(source - source.mean(axis=0)) < 2:
        return Projection(None, bends=False)  # the output shows nothing of the image, or only a sliver
    ones = np.concatenate([source, np.ones((len(source), 1))], axis=1)
    affine = np.eye(3)
    affine[:2] = np.linalg.lstsq(ones, target, rcond=None)[0].T
    if np.abs(_project(affine, source) - target).max() < _TOLERANCE / 2:
        return Projection(affine, bends=False)
    projective, _ = cv2.findHomography(source, target)
    if projective is not None and np.abs(_project(projective, source) - target).max() < _TOLERANCE:
        return Projection(np.asarray(projective), bends=False)
    return Projection(None, bends=True)


def _project(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    moved = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ matrix.T
    projected: np.ndarray = moved[:, :2] / moved[:, 2:]
    return projected
