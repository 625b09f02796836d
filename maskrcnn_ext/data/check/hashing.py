"""Finds images that are one another, also after saving them again, scaling, mirroring, or a change of brightness."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

_THUMB = 16
# Of near duplicates, in any of the eight ways to turn and mirror an image. Measured on seven sets of photographs, microscopy, CT and MR:
# copies that were scaled, brightened, made noisy or saved as JPEG correlate by 0.94 and more but for one in a hundred; different images
# by at most 0.7, neighbouring slices of a volume by 0.95.
_MIN_CORRELATION = 0.93
_MIN_CONTRAST = 2.0  # grey levels; below it an image is blank, and all blank images are alike
_ROWS = 512  # compared at a time, which bounds the memory

_TURNS: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
    lambda thumbs: thumbs,
    lambda thumbs: thumbs[:, :, ::-1],
    lambda thumbs: thumbs[:, ::-1],
    lambda thumbs: thumbs[:, ::-1, ::-1],
    lambda thumbs: thumbs.swapaxes(1, 2),
    lambda thumbs: thumbs.swapaxes(1, 2)[:, :, ::-1],
    lambda thumbs: thumbs.swapaxes(1, 2)[:, ::-1],
    lambda thumbs: thumbs.swapaxes(1, 2)[:, ::-1, ::-1],
)


def thumbnail(image: Image.Image) -> np.ndarray:
    """Returns the image in (16, 16) grey pixels, float32."""
    return np.asarray(_grey(image).resize((_THUMB, _THUMB), Image.Resampling.BOX))


def _grey(image: Image.Image) -> Image.Image:
    """One channel of floats: 16-bit microscopy and satellite images keep their range."""
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return Image.fromarray(np.asarray(image, dtype=np.float32))
    return image.convert("L").convert("F")


def near_pairs(thumbs: np.ndarray, others: int) -> Iterator[tuple[int, int, bool]]:
    """Yields (later, earlier, turned) of images that are almost the same: two indices, and whether one is the other turned or mirrored.

    Of every image the one that is most like it, among the others and among its own: a film has as many pairs as the square of its frames.

    Args:
        thumbs: thumbnails (N, 16, 16).
        others: the first so many images are only compared with, not with each other.
    """
    upright = _steps(thumbs)
    for start in range(others, len(thumbs), _ROWS):
        stop = min(start + _ROWS, len(thumbs))
        best = np.full((stop - start, stop), -1.0, np.float32)
        turned = np.zeros(best.shape, bool)
        for number, turn in enumerate(_TURNS):
            correlation = _steps(turn(thumbs[start:stop])) @ upright[:stop].T
            turned[correlation > best] = number > 0
            np.maximum(best, correlation, out=best)
        for row, later in enumerate(range(start, stop)):
            for low, high in ((0, others), (others, later)):
                earlier = low + int(best[row, low:high].argmax()) if low < high else 0
                if low < high and best[row, earlier] > _MIN_CORRELATION:
                    yield later, earlier, bool(turned[row, earlier])


def _steps(thumbs: np.ndarray) -> np.ndarray:
    """From each pixel to the next ones, (N, 480) of length 1: images of one scene or one microscope have light and shade in common."""
    thumbs = thumbs.astype(np.float32)
    down, right = np.diff(thumbs, axis=1), np.diff(thumbs, axis=2)
    steps = np.concatenate([down.reshape(len(thumbs), -1), right.reshape(len(thumbs), -1)], axis=1)
    steps /= np.linalg.norm(steps, axis=1, keepdims=True) + 1e-9
    steps[thumbs.std(axis=(1, 2)) < _MIN_CONTRAST] = 0  # equal to nothing
    return steps
